"""What Ray raises."""


class RayError(Exception):
    """Anything that Ray has to say."""
