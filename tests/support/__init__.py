"""What the tests of trainflow share: control planes, engines and commands in the test's own process; throw-away
projects, run by the installed command; servers of databases, object stores and webhooks."""
