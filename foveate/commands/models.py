"""`foveate models`: the bundles on this machine, or those of a service."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.bundles import bundle_of, copy_bundle, holds_smp, named_bundle, pack_bundle, unpacked
from foveate.card import read_card
from foveate.client import Client
from foveate.errors import FoveateError, OptionInvalid
from foveate.options import KeyOption
from foveate.output import JsonFlag, print_result, print_table
from foveate.resolve import resolve
from foveate.schema import BundleCard

RemoteOption = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", envvar="FOVEATE_SERVER", help="Ask this service; default: this machine."),
]
BundleArgument = Annotated[
    str, typer.Argument(metavar="NAME|DIR|RUN", help="A bundle's name, its directory, or that of a finished run.")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="List, show, add, export, verify and remove models (bundles).", no_args_is_help=True)
    group.command("list")(list_models)
    group.command()(show)
    group.command()(add)
    group.command()(export)
    group.command()(verify)
    group.command()(remove)
    app.add_typer(group, name="models")


def list_models(server: RemoteOption = None, api_key: KeyOption = None, as_json: JsonFlag = False) -> None:
    """List the models by name. Those that cannot be used are named on stderr, with the reason."""
    if server is None:
        catalog = _catalog()
        cards = [bundle.card for bundle in catalog.bundles()]
        for broken in catalog.broken():
            typer.echo(f"warning: {broken.directory} cannot be used: {broken.reason}", err=True)
    else:
        with Client(server, api_key) as client:
            cards = client.models()
    rows = [(card.name, card.version, card.input.kind, _spacing(card), card.licence) for card in cards]
    print_table({"models": cards}, ("model", "version", "for", "spacing", "licence"), rows, as_json)


def show(
    model: BundleArgument, server: RemoteOption = None, api_key: KeyOption = None, as_json: JsonFlag = False
) -> None:
    """Show a model's card."""
    if server is None:
        card = read_card(_directory(model))
    else:
        with Client(server, api_key) as client:
            card = client.model(model)
    lines = [
        f"{card.name} {card.version} ({card.licence})",
        f"for:      {card.input.kind}, {'/'.join(card.input.bands)} {card.input.dtype}, {_spacing(card)}",
        f"network:  {card.network.architecture} {card.network.encoder or ''} ({card.network.library})",
        f"fovs:     {', '.join(map(str, card.fovs))} px, patches of {card.patch_size}, {card.mapping} mapping",
        f"policy:   {card.policy}, under dense coverage",
        f"coverage: {card.coverage.default}{_detail(card)}",
        *(f"class {entry.value:>3} {entry.name}" for entry in card.classes),
    ]
    print_result(card, "\n".join(lines), as_json)


def add(
    source: Annotated[
        Path,
        typer.Argument(metavar="DIR|ZIP", help="A bundle, an exported .zip, or smp's save_pretrained folder."),
    ],
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON or YAML: what a save_pretrained folder cannot say (name, licence, classes, input).",
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a model of the same name.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Verify a bundle and add it to this machine's models. They lie in FOVEATE_DATA/models."""
    with unpacked(source) as given, _as_bundle(given, card) as directory:
        try:
            report = resolve("model.bundle:verify_bundle")(directory)
        except FoveateError as error:
            # What was unpacked is gone in a moment; the user knows its source.
            raise type(error)(error.message.replace(str(directory), str(source)), hint=error.hint) from error
        settings = _settings()
        target = copy_bundle(directory, settings.data / "models", replace=replace)
    licence = read_card(target).licence
    hidden = [str(place / report.name) for place in settings.bundle_dirs if (place / report.name).is_dir()]
    hides = [one for one in hidden if one != str(target)]
    rivals = _rivals(read_card(target))
    document = {"added": report.name, "directory": str(target), "licence": licence, "hides": hides, "rivals": rivals}
    lines = [f"{report.name}: added as {target}; licence: {licence}"]
    lines += [f"it hides {one}, until its directory is removed" for one in hides]
    if rivals:
        lines.append(f"images that suit {' or '.join(rivals)} too need --model from now on: several models fit them")
    print_result(document, "\n".join(lines), as_json)


def _rivals(card: BundleCard) -> list[str]:
    """Models that take images of the same kind and bands, so that `card` is not the only one that fits."""
    kinds = {"any", card.input.kind}
    return [
        other.name
        for other in (bundle.card for bundle in _catalog().bundles())
        if other.name != card.name
        and (card.input.kind == "any" or other.input.kind in kinds)
        and (other.input.bands, other.input.dtype) == (card.input.bands, card.input.dtype)
    ]


@contextmanager
def _as_bundle(given: Path, card: Path | None) -> Iterator[Path]:
    """The bundle in the directory `given`, for as long as the block lasts: made from it where smp saved it."""
    if not holds_smp(given):
        if card is not None:
            hint = "leave --card out: a bundle has its own bundle.json"
            raise OptionInvalid(f"--card {card}: {given} is no folder of save_pretrained (config.json)", hint=hint)
        yield bundle_of(given)
        return
    with tempfile.TemporaryDirectory(prefix="foveate-bundle-") as scratch:
        resolve("model.adopt:adopt")(given, card, Path(scratch))
        yield Path(scratch)


def export(
    model: Annotated[str, typer.Argument(metavar="NAME|DIR|RUN", help="A model, its directory, or a finished run.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="New zip file; default ./NAME.zip.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Pack a model or a finished run into one .zip. `foveate models add` takes it elsewhere."""
    directory = _directory(model)
    target = out or Path(f"{read_card(directory).name}.zip")
    if not target.parent.is_dir():
        raise OptionInvalid(f"--out {target}: there is no directory {target.parent}", hint="make it first")
    pack_bundle(directory, target)
    print_result({"file": str(target)}, str(target), as_json)


def verify(model: BundleArgument, as_json: JsonFlag = False) -> None:
    """Check a model's files, card and weights. Its networks run once."""
    report = resolve("model.bundle:verify_bundle")(_directory(model))
    text = f"{report.name} {report.version}: sound ({', '.join(report.checks)}); sha256 {report.sha256}"
    print_result(asdict(report), text, as_json)


def remove(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A model that was added.")], as_json: JsonFlag = False
) -> None:
    """Remove a model from those that were added to this machine (FOVEATE_DATA/models)."""
    settings = _settings()
    directory = _added(settings.data / "models", model)
    if directory is None:
        elsewhere = _catalog().bundle(model).directory  # or unknown
        hint = f"only what `foveate models add` put into {settings.data / 'models'} can be removed"
        raise OptionInvalid(f"the model {model!r} lies in {elsewhere}, and was not added", hint=hint)
    # Hidden first, by one rename that a full disk has room for: no job shall find half a bundle.
    hidden = directory.with_name(f".removed-{secrets.token_hex(4)}")
    try:
        directory.rename(hidden)
        if hidden.is_symlink():
            hidden.unlink()
        else:
            shutil.rmtree(hidden)
    except OSError as error:
        hint = "mend the permissions of the directory"
        raise OptionInvalid(f"{directory} cannot be removed: {error.strerror or error}", hint=hint) from error
    shown = [str(bundle.directory) for bundle in _catalog().bundles() if bundle.card.name == model]
    lines = [f"{model}: removed {directory}", *(f"the model of that name is now {one}" for one in shown)]
    print_result({"removed": model, "directory": str(directory), "uncovers": shown}, "\n".join(lines), as_json)


def _added(models: Path, name: str) -> Path | None:
    """Where a model that was added lies; one that is broken goes by the name of its directory."""
    catalog = resolve("jobs.catalog:Catalog")([models])
    broken = {bundle.directory.name: bundle.directory for bundle in catalog.broken()}
    sound = {bundle.card.name: bundle.directory for bundle in catalog.bundles()}
    return (broken | sound).get(name)


def _settings() -> Any:
    return resolve("jobs.settings:read_settings")(resolve("jobs.settings:StateSettings"))


def _catalog() -> Any:
    return resolve("jobs.catalog:Catalog")(_settings().bundle_dirs)


def _directory(model: str) -> Path:
    return named_bundle(model, lambda name: Path(_catalog().bundle(name).directory))


def _detail(card: BundleCard) -> str:
    """What the default coverage spends, in words."""
    if card.coverage.default == "dense":
        return ""
    return f", unless a policy is asked for; detail {card.coverage.detail:g}" if card.coverage.detail else ""


def _spacing(card: BundleCard) -> str:
    if card.input.spacing is None:
        return "any spacing"
    return f"{card.input.spacing:g} {'µm' if card.input.spacing_unit == 'um' else 'm'}"
