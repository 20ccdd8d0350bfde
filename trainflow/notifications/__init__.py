"""Notifications: tell the world outside what happened to a chain. Never in the way of training.

    task, scheduler or command ── Notice ──▶ table `notification` ──▶ the engine's notifier ──▶ webhook, command …

A notice is written in the transaction that makes it true, and delivered later by the process that runs the mirror (an
engine, or the scheduler alone), at least once: a receiver tells a repetition by its `id`. A delivery that fails is
tried again with a growing pause, also by the next engine, and given up after about a day.

What is delivered is one JSON object (`targets.payload`): the body of a POST to `[notifications] webhook`, and the
standard input of `[notifications] command`. A service of Apprise gets a title and the sentence.

    format      1; raised when a key changes its meaning
    id          the same for the same fact
    event       stopped | resumed | promoted | after_commit_failed | republished | never_catches_up
    cause       of `stopped`: gate | gap | check | task; otherwise null
    at          when it happened (ISO 8601, UTC)
    project     name of the project's folder
    pipeline, stage, branch      the chain
    dag_id, run_id               the run it happened in; "" where there is none
    sentence    for people
    page        the chain's page; null where no API server is known
    facts       more about it, by event (`stopped` by a gate: failures, checkpoint_id, start, end, metrics; `promoted`:
                alias, checkpoint_id, number, uri; …)

Invariants: a failure is an answer with a reason, never an exception in the engine; neither the URL of the webhook
(its path often is the secret) nor the arguments of the command are in a message, a log or a database.

A change breaks this when a task or a decision waits for a delivery, or when a key changes its meaning without a new
`format`.

Reading order: `trainflow.messages.notice` (what can happen), `targets`; then `engine.notifier`.
"""
