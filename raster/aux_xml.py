"""The sidecar that tells GDAL, QGIS and ArcGIS the names of a mask's classes."""

from collections.abc import Sequence
from xml.etree import ElementTree

from foveate.schema import ClassCard

_INTEGER, _REAL, _STRING = 0, 1, 2
_COLUMNS = (
    # name, GDALRATFieldType, GDALRATFieldUsage (gdal.h)
    ("Value", _INTEGER, 5),
    ("Class", _STRING, 2),
    ("Red", _INTEGER, 6),
    ("Green", _INTEGER, 7),
    ("Blue", _INTEGER, 8),
    ("Count", _REAL, 1),  # an integer column would overflow at 2 Gpx
)


def aux_xml(classes: Sequence[ClassCard], pixels: Sequence[int]) -> str:
    """GDAL's auxiliary metadata: category names, and a thematic attribute table with one row a class.

    pixels: how many pixels each of `classes` has.
    """
    root = ElementTree.Element("PAMDataset")
    band = ElementTree.SubElement(root, "PAMRasterBand", band="1")
    _category_names(band, classes)
    table = ElementTree.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        field = ElementTree.SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", name), ("Type", kind), ("Usage", usage)):
            ElementTree.SubElement(field, tag).text = str(value)
    for index, (card, count) in enumerate(zip(classes, pixels, strict=True)):
        row = ElementTree.SubElement(table, "Row", index=str(index))
        for value in (card.value, card.name, *card.color, count):
            ElementTree.SubElement(row, "F").text = str(value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _category_names(band: ElementTree.Element, classes: Sequence[ClassCard]) -> None:
    """Category k is the name of value k, so values that no class has get an empty one."""
    names = {card.value: card.name for card in classes}
    categories = ElementTree.SubElement(band, "CategoryNames")
    for value in range(max(names) + 1):
        ElementTree.SubElement(categories, "Category").text = names.get(value, "")
