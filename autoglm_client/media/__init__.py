"""Pictures, sound and film as parts of a message: ``source`` reads, ``header`` looks, ``scaling`` needs Pillow."""

from .parts import (
    MAX_CLIP_BYTES,
    MAX_DECODED_PIXELS,
    MAX_IMAGE_BYTES,
    MAX_PIXELS,
    AudioPart,
    AudioUrlPart,
    ImagePart,
    ImageSource,
    MediaSource,
    VideoPart,
    audio,
    image,
    image_size,
    video,
)

__all__ = [
    "MAX_CLIP_BYTES",
    "MAX_DECODED_PIXELS",
    "MAX_IMAGE_BYTES",
    "MAX_PIXELS",
    "AudioPart",
    "AudioUrlPart",
    "ImagePart",
    "ImageSource",
    "MediaSource",
    "VideoPart",
    "audio",
    "image",
    "image_size",
    "video",
]
