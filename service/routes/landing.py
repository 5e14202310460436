"""The way in: the landing page with its links, and the conformance classes that the tests hold us to."""

from typing import Any

from fastapi import APIRouter

from service.deps import Base
from service.examples import shown

router = APIRouter(tags=["description"])

_REL = "http://www.opengis.net/def/rel/ogc/1.0/"
_PROCESSES = "http://www.opengis.net/spec/ogcapi-processes-1/1.0/conf/"
CONFORMS_TO = [
    "http://www.opengis.net/spec/ogcapi-common-1/1.0/conf/core",
    *(_PROCESSES + name for name in ("core", "json", "job-list", "dismiss", "ogc-process-description")),
]
_OPENAPI = "application/vnd.oai.openapi+json;version=3.1"


@router.get(
    "/",
    summary="The landing page",
    responses={200: shown({"title": "Foveate", "description": "…", "links": []}, "Where to go from here")},
)
async def landing(base: Base) -> dict[str, Any]:
    def link(path: str, rel: str, title: str, media_type: str = "application/json") -> dict[str, str]:
        return {"href": f"{base}{path}", "rel": rel, "type": media_type, "title": title}

    return {
        "title": "Foveate",
        "description": "Foveated segmentation of images too large for any screen: slides and satellite scenes.",
        "links": [
            link("/", "self", "this page"),
            link("/openapi.json", "service-desc", "the OpenAPI description", _OPENAPI),
            link("/docs", "service-doc", "the same for people", "text/html"),
            link("/conformance", f"{_REL}conformance", "what this service conforms to"),
            link("/conformance", "conformance", "what this service conforms to"),
            link("/processes", f"{_REL}processes", "the processes"),
            link("/jobs", f"{_REL}job-list", "the jobs"),
            link("/images", "images", "the images"),
            link("/models", "models", "the models"),
        ],
    }


@router.get(
    "/conformance",
    summary="The conformance classes",
    responses={200: shown({"conformsTo": CONFORMS_TO}, "Of OGC API - Processes and - Common")},
)
async def conformance() -> dict[str, list[str]]:
    return {"conformsTo": CONFORMS_TO}
