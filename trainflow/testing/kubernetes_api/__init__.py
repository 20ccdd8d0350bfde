"""A Kubernetes API server for tests, whose pods run as processes of this machine.

It answers real clients over HTTP: `kubectl`, the official Python client, an executor under test. Objects are checked
strictly against the published schemas (an unknown field is an error), and have resource versions, label and field
selectors, generated names, owners and graceful deletion; lists can be watched, with bookmarks and 410. What a cluster
does on bad days is had on request: a quota that is full, 429 with Retry-After, events that are dropped or come in
another order, a server that is away, pods that are evicted or run out of memory, a node that is lost.

What it is not: containers share the files, the network and the user of this machine, images are not pulled, volumes
are not mounted and probes are not run; controllers (of Deployments, Jobs) do not exist. It reads and writes JSON and
YAML: what is sent as protobuf (`kubectl create namespace NAME`, unlike `kubectl create -f`) gets 415.

Reading order: `status` (errors), `resources` (kinds, schemas, and patches by these), `versioned_objects` (versions and
changes), `admission` (what is checked and filled in when an object is made), `kubelet` and `container` (pods as
processes), `pod_status`, `faults`, `watch`, `requests` (what is asked),
`exec_stream`, `discovery`, `server`.

A change breaks this when an object is taken that a cluster would refuse, or when a pod's process outlives the server.

Needs the package kubernetes-validate, which brings the schemas.
"""
