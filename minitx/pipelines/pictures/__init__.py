"""Pictures of results: HTML without any library, PNG and SVG with matplotlib."""

from minitx.pipelines.pictures.show import show

__all__ = ["show"]
