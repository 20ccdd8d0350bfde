"""How facts are shown: tables and lines for people, JSON with stable keys for programs."""
