"""Hand attempts to a Kubernetes cluster: a pod for each, and one for each rank of those that have several.

Purpose: a pod is a chance to claim, as a message of Celery is. Who runs an attempt is decided by its claim, what is
lost by its heartbeats; what is seen of pods only says it sooner, and in words.

Invariants: the name of a pod is a function of its attempt, so that two schedulers, or one that asks twice, make one.
Nothing is counted here. A cluster that refuses for now (a quota, 429, 5xx, no connection) fails no task. A pod is
deleted when its attempt is over in the database; its log has gone to the API server before its process ends.

Reading order: `options`, `pod` (what is sent), `pod_outcome` (what is seen of a pod, and what that means: the table of
states), `pod_attempt` (the same for all pods of an attempt), `credentials` and `cluster` (HTTP), `pod_writer` and
`pod_watch` (a thread each), `executor`.

Lightkube reads the configuration and authenticates; requests are plain HTTP over its connections. The official client
would do too, but takes three times as long to import and 20 MiB, for models of each kind of object that are not needed
here. It is imported by the threads, never by the engine's way.

A change breaks this when it believes a pod where the attempt has spoken, or waits for the cluster in the engine's turn.
"""
