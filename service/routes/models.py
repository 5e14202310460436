"""Models: the cards of the bundles that jobs can name."""

from fastapi import APIRouter
from pydantic import BaseModel

from foveate.errors import BundleUnknown
from foveate.schema import BundleCard
from service.deps import State
from service.errors import responses
from service.examples import CARD, shown

router = APIRouter(prefix="/models", tags=["models"])


class BrokenModel(BaseModel):
    """A bundle that is here and cannot be used."""

    directory: str
    code: str
    message: str
    hint: str


class ModelList(BaseModel):
    models: list[BundleCard]
    broken: list[BrokenModel]


@router.get("", summary="List the models", responses={200: shown({"models": [CARD], "broken": []}, "By name")})
def list_models(state: State) -> ModelList:
    broken = [
        BrokenModel(
            directory=bundle.directory.name,
            code=bundle.error.code,
            message=bundle.reason,
            hint=bundle.error.hint,
        )
        for bundle in state.catalog.broken()
    ]
    return ModelList(models=[bundle.card for bundle in state.catalog.bundles()], broken=broken)


@router.get(
    "/{name}",
    summary="Show a model's card",
    responses={200: shown(CARD, "The card, as in bundle.json"), **responses(BundleUnknown)},
)
def show_model(name: str, state: State) -> BundleCard:
    return state.catalog.bundle(name).card
