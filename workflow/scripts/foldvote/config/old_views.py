"""Names of views that earlier versions read, such as `rotate+8`, rewritten for the error that refuses them."""

import re

_JOINT = re.compile(r"\+(?!\d)")  # the plus of rotate+8 joined nothing
_NUMBERED = re.compile(r"(.*[^\d.])(\d{1,3}(?:\.\d{1,2})?)")
_FLIPS = {"hflip": "{HorizontalFlip: {p: 1}}", "vflip": "{VerticalFlip: {p: 1}}"}
_ON_PIXELS = ("brighter", "darker", "contrast", "clahe")  # what came first, wherever it was written


def rewritten_view(name: str) -> str | None:
    """What to write for an old view, such as "write {name: clahe-4, steps: [...]}"; None where it never was one."""
    if (found := _rewritten(name.replace("five_crops", "crop-centre"))) is None:
        return None
    steps, then = found
    own = _JOINT.sub("-", name.replace("five_crops", "crop-centre")).replace("+", "")
    follows = f", then: {then}" if then else ""
    text = f"write {{name: {own}, steps: [{', '.join(steps)}]{follows}}}" if steps else f"write {then}"
    return f"{text}, and the same for the other four crops" if "five_crops" in name else text


def rewritten_then(name: str) -> str | None:
    """The same for a view that followed the steps of another one."""
    if (found := _rewritten(name)) is None:
        return None
    steps, then = found
    follows = f"then: {then}" if then else "drop then"
    return f"write {', '.join(steps)} as the last of steps, and {follows}" if steps else f"write {then}"


def _rewritten(name: str) -> tuple[list[str], str | None] | None:
    """The steps that stand for an old view, and the named view that follows them, if any."""
    parts = sorted(_JOINT.split(name), key=lambda part: not part.startswith(_ON_PIXELS))
    then = _named(parts[-1])
    steps = [_step(part) for part in (parts[:-1] if then else parts)]
    return None if None in steps else ([step for step in steps if step], then)


def _named(part: str) -> str | None:
    """The view of today that does just what an old one did."""
    if turn := re.fullmatch(r"rotate([+-](?:90|180|270))", part):
        return f"rot{int(turn[1]) % 360}"
    crop = re.fullmatch(r"crop-(centre|(top|bottom)-(left|right))(-[1-9]\d)?", part)
    return f"{part}{'' if crop[4] else '-90'}" if crop else part if part in _FLIPS else None


def _step(part: str) -> str | None:
    """The step of albumentations that does, to about one grey level, what an old part of a name did."""
    if part in _FLIPS:
        return _FLIPS[part]
    numbered = _NUMBERED.fullmatch("clahe-2" if part == "clahe" else part)
    if numbered is None:
        return None
    stem, text = numbered.groups()
    sign, percent = (-1 if stem in ("rotate-", "darker-", "contrast-") else 1), float(text)
    factor = f"[{1 + sign * percent / 100:g}, {1 + sign * percent / 100:g}]"
    same, colours = "[1, 1]", "saturation: [1, 1], hue: [0, 0], p: 1"
    match stem:
        case "rotate+" | "rotate-":
            return f"{{Affine: {{rotate: [{sign * percent:g}, {sign * percent:g}], border_mode: 2, p: 1}}}}"
        case "scale-":
            return f"{{Affine: {{scale: [{percent / 100:g}, {percent / 100:g}], border_mode: 2, p: 1}}}}"
        case "clahe-":
            return f"{{CLAHE: {{clip_limit: [{text}, {text}], p: 1}}}}"
        case "brighter-" | "darker-":
            return f"{{ColorJitter: {{brightness: {factor}, contrast: {same}, {colours}}}}}"
        case "contrast+" | "contrast-":
            return f"{{ColorJitter: {{brightness: {same}, contrast: {factor}, {colours}}}}}"
    return _crop_step(stem, 1 - percent / 100)


def _crop_step(stem: str, removed: float) -> str | None:
    """A crop at any edge or corner that removes a share of both sides, which was 0.01 to 0.9."""
    crop = re.fullmatch(r"crop-(?=[a-z])(?:centre|(top|bottom)?-?(left|right)?)-", stem)
    if crop is None or not 0.01 <= removed <= 0.9:
        return None
    top, left = {None: 0.5, "top": 0, "bottom": 1}[crop[1]], {None: 0.5, "left": 0, "right": 1}[crop[2]]
    cut = ", ".join(f"{-removed * share + 0:g}" for share in (top, 1 - left, 1 - top, left))
    return f"{{CropAndPad: {{percent: [{cut}], p: 1}}}}"
