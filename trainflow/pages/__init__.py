"""The pages: what a person sees of a project in a browser, rendered here, live by one stream of events.

Reading order
- `lazy_application` (imported by the server, and all else with the first page), `application` (what stands at which
  path, and what every answer says to browsers), `site` (what all pages share), `rendering` (templates, and how values
  are written), `feed` (one look at the database for all pages that are open), `watch` (where chains are: asked of
  ledgers and samples only while a person looks);
- a page each: `fleet`, `chain`, `checkpoint`, `run`, `dag`, `waits`; `downloads` (files of checkpoints), `decisions`
  (forms), `idempotency` (each acts once);
- drawings, pure: `calendar`, `curves`, `gantt`, `graph`, `log_text`;
- `report`: a pipeline's chains in one file.

Invariants
- A page is made of what `trainflow.insight` answers, and acts through `trainflow.actions`: nothing is decided here.
- What people and pipelines wrote is escaped; no answer holds script or style inline, and none names another host.
- A page works without script: it is then as of when it was asked for.
- Links are relative, so a page works below any prefix.
- A process with pages open looks at the database as often as with one.

A change breaks this when a page costs in proportion to the length of a chain, when a request lists a store, or when a
page that no person looks at costs something.
"""
