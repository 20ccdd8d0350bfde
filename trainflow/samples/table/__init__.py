"""What there is of a sample table: which partitions, whether they are ready, whether they are good.

Nothing is remembered between two questions; a question costs what is new, in listings and footers.

Reading order: `readiness` and `checks` (rules over what was listed and read), `inventory` (list and read, once each),
`table_formats` (tables whose files alone do not say what is in them are refused), `empty_table` (what is said where
nothing is found), `probe` (is something new there? for triggers, without Arrow).

A change breaks this when a question lists or reads what lies before the watermark in proportion to its number.
"""
