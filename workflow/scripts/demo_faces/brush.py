"""Anti-aliased shapes on an RGB canvas: smooth outlines, strokes and soft shading."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

Points = Sequence[tuple[float, float]] | np.ndarray
Rgb = tuple[float, float, float]
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_ANGLES = np.linspace(0, 2 * np.pi, 32, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


@dataclass(frozen=True)
class Frame:
    """Where drawing units lie on the canvas.

    Attributes:
        origin: canvas position of (0, 0), in pixels.
        unit: pixels per unit.
        tilt: clockwise rotation about `pivot`, in radians.
        pivot: centre of the rotation, in units.
        turn: shift of the point (0, 0), right and down, in units. It fades to 0 at a distance of about one unit, so
            that a face seems to look that way.
    """

    origin: tuple[float, float]
    unit: float
    tilt: float = 0.0
    pivot: tuple[float, float] = (0.0, 0.0)
    turn: tuple[float, float] = (0.0, 0.0)

    def pixels(self, points: Points) -> np.ndarray:
        """Canvas positions of `points`: float64 array of shape (points, 2)."""
        at = np.asarray(points, dtype=np.float64)
        if self.turn != (0.0, 0.0):
            near = np.maximum(1 - (at * (1 / 0.85, 1 / 1.15)) ** 2, 0)
            at = at + (near[:, :1] * near[:, 1:]) * self.turn
        pivot = np.asarray(self.pivot)
        return (at - pivot) @ (_rotation(self.tilt) * self.unit) + pivot * self.unit + self.origin


def smooth(points: Points, closed: bool = True, steps: int = 8) -> np.ndarray:
    """A Catmull-Rom curve through `points`.

    Args:
        points: at least three (x, y).
        closed: whether the last point joins the first.
        steps: points per piece.

    Returns:
        float64 array of shape (n, 2).
    """
    at = np.asarray(points, dtype=np.float64)
    padded = np.vstack([at[-1:], at, at[:2]] if closed else [at[:1], at, at[-1:]])
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    weights = _catmull_rom(steps)
    curve = sum(weight * part[:, None, :] for weight, part in zip(weights, (before, start, end, after), strict=True))
    curve = curve.reshape(-1, 2)
    return curve if closed else np.vstack([curve, at[-1:]])


@cache
def _catmull_rom(steps: int) -> np.ndarray:
    """Weights of the four points around a piece at each of its steps: shape (4, steps, 1)."""
    t = np.arange(steps) / steps
    powers = np.stack([np.ones(steps), t, t**2, t**3])
    basis = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    return (basis.T @ powers)[:, :, None]


def ellipse(centre: tuple[float, float], radii: tuple[float, float], turn: float = 0.0) -> np.ndarray:
    """Outline of an ellipse: float64 array of shape (32, 2); `turn` is its rotation in radians."""
    outline = _CIRCLE * radii
    if turn:
        outline = outline @ _rotation(turn)
    return outline + centre


def mirrored(points: Points) -> list[tuple[float, float]]:
    """The `points` of the right half, from top to bottom, followed by their mirror images from bottom to top."""
    half = [(float(x), float(y)) for x, y in points]
    return half + [(-x, y) for x, y in reversed(half) if abs(x) > 1e-9]


def shade(colour: Rgb, gain: float) -> Rgb:
    """Multiply a colour by `gain`: below 1 it becomes darker and slightly redder, above 1 lighter."""
    cool = 1 - 0.06 * max(0.0, 1 - gain)
    return tuple(min(255.0, value * gain * tint) for value, tint in zip(colour, (1.0, cool, cool), strict=True))  # type: ignore[return-value]


def lift(colour: Rgb, share: float) -> Rgb:
    """Mix a colour with white; `share` is the share of white."""
    return mix(colour, (255, 255, 255), share)


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Mix two colours; `share` is the share of the second."""
    return tuple(one + (two - one) * share for one, two in zip(first, second, strict=True))  # type: ignore[return-value]


@dataclass
class Brush:
    """Draws in the units of a frame.

    Attributes:
        image: float32 array of shape (3, height, width), RGB, 0 to 255; changed in place. Blending colour planes is
            several times as fast as blending interleaved colours.
        frame: where the units lie.
    """

    image: np.ndarray
    frame: Frame

    def fill(
        self, outline: Points, colour: Rgb, alpha: float = 1.0, blur: float = 0.0, within: np.ndarray | None = None
    ) -> None:
        """Fill a closed outline.

        Args:
            outline: (x, y) in units.
            colour: RGB, 0 to 255.
            alpha: opacity, 0 to 1.
            blur: softness of the edge, in units.
            within: a cover made by `cover`; nothing is drawn outside it.
        """
        self._lay(self.frame.pixels(outline), colour, alpha, blur, within, 0.0)

    def stroke(
        self,
        line: Points,
        colour: Rgb,
        width: float,
        alpha: float = 1.0,
        blur: float = 0.0,
        within: np.ndarray | None = None,
    ) -> None:
        """Draw an open line of `width` units; the other arguments are those of `fill`."""
        self._lay(self.frame.pixels(line), colour, alpha, blur, within, width * self.frame.unit)

    def cover(self, outline: Points) -> np.ndarray:
        """How much of each pixel a closed outline covers: float32 array of shape (height, width), 0 to 1."""
        covered = np.zeros(self.image.shape[1:], np.uint8)
        cv2.fillPoly(covered, [_fixed(self.frame.pixels(outline))], 255, cv2.LINE_AA, _SHIFT)
        return covered.astype(np.float32) / 255

    def _lay(
        self, at: np.ndarray, colour: Rgb, alpha: float, blur: float, within: np.ndarray | None, thick: float
    ) -> None:
        height, width = self.image.shape[1:]
        sigma = blur * self.frame.unit
        margin = int(3 * sigma + thick) + 3
        (low_x, low_y), (high_x, high_y) = at.min(axis=0).tolist(), at.max(axis=0).tolist()
        left, top = max(int(low_x) - margin, 0), max(int(low_y) - margin, 0)
        right, bottom = min(int(high_x) + 1 + margin, width), min(int(high_y) + 1 + margin, height)
        if right <= left or bottom <= top or alpha <= 0:
            return
        # A wide blur has little detail, so it is drawn at low resolution and enlarged, which is several times as fast.
        coarse = max(1, int(sigma / 1.6))
        size = (-(-(right - left) // coarse), -(-(bottom - top) // coarse))
        covered = np.zeros(size[::-1], np.uint8)
        line = _fixed((at - (left, top)) / coarse)
        if thick > 0:
            cv2.polylines(covered, [line], False, 255, max(1, round(thick / coarse)), cv2.LINE_AA, _SHIFT)
            alpha *= min(1.0, thick)
        else:
            cv2.fillPoly(covered, [line], 255, cv2.LINE_AA, _SHIFT)
        if sigma > 0.3:
            covered = cv2.GaussianBlur(covered, (0, 0), sigma / coarse)
        if coarse > 1:
            grown = cv2.resize(covered, (size[0] * coarse, size[1] * coarse), interpolation=cv2.INTER_LINEAR)
            covered = grown[: bottom - top, : right - left]
        opacity = covered.astype(np.float32) * np.float32(min(alpha, 1.0) / 255)
        if within is not None:
            opacity *= within[top:bottom, left:right]
        part = self.image[:, top:bottom, left:right]
        part += (np.asarray(colour, np.float32)[:, None, None] - part) * opacity


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(points * (1 << _SHIFT)).astype(np.int32).reshape(-1, 1, 2)


def _rotation(angle: float) -> np.ndarray:
    """The matrix that rotates row vectors clockwise on a canvas whose y axis points down."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])
