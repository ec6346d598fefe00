"""Owns the font of the figures: of matplotlib's own, the part that they are likely to need.
Refuses to change how anything looks: a character that the part lacks comes from the whole font.

Every PDF holds the letters that it shows. To cut them out of 6,000 takes as long as to draw the figure.
"""

from pathlib import Path

WHOLE, PART = "DejaVu Sans", "DejaVu Sans, a part"
# Latin, Greek, punctuation, arrows and signs of mathematics
CHARACTERS = (*range(0x20, 0x180), *range(0x370, 0x400), *range(0x2010, 0x2040), *range(0x2190, 0x2265))


def write_part(folder: Path) -> Path:
    from fontTools import subset
    from matplotlib import font_manager

    options = subset.Options(legacy_kern=True, notdef_outline=True, recalc_timestamp=False)
    options.drop_tables += ["FFTM"]  # of the program that drew the font; unknown here, and said to be
    path = folder / "part.ttf"
    with subset.load_font(font_manager.findfont(WHOLE), options) as font:
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=CHARACTERS)
        cutter.subset(font)
        for record in list(font["name"].names):
            if record.nameID in (1, 16):  # the family, by which it is chosen
                font["name"].setName(PART, record.nameID, record.platformID, record.platEncID, record.langID)
        subset.save_font(font, str(path), options)
    return path


def families(part: Path) -> list[str]:
    """What `font.family` is to be in this process."""
    from matplotlib.font_manager import fontManager

    if str(part) not in {font.fname for font in fontManager.ttflist}:
        fontManager.ttflist[:] = [font for font in fontManager.ttflist if font.name != PART]  # of an earlier report
        fontManager.addfont(str(part))
    return [PART, WHOLE]
