"""S3, Google Cloud Storage and Azure Blob Storage by obstore, a binding of Rust's `object_store`.

Reading order: `driver` (the requests, threads and forks), `errors` (what obstore raises becomes an error of Python),
`opened_stores` (buckets that are opened, anew for another region and for credentials that were replaced), `buckets`
(how those of one account are opened), `urls` (a URL and fsspec's options in the words of obstore, by `s3`, `gcs` and
`azure`; an option that there is no word for is `OptionNotMapped`, and fsspec's driver is taken), `fsspec_options`,
`aws_profiles` (credentials), `runtime` (threads and forks).

Invariants:

- What is written for fsspec means here what it means there, or is not taken.
- No process makes a request before it forks others that make some.
- A signal is handled while a request is under way.

A change breaks this when an option means something else than for fsspec, or an error of obstore leaves the package as
what it is.
"""
