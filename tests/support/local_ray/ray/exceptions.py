"""What Ray raises."""


class RayError(Exception):
    """Anything that Ray has to say."""


class RayTaskError(RayError):
    """What was called raised something."""
