from __future__ import annotations

from pathlib import Path

import pytest

from trainflow.errors import InputError
from trainflow.messages.parsed_file import ChainAccess
from trainflow.serialization.document import ChainDocument
from trainflow.settings.model import Settings
from trainflow.settings.project import Project, project_at
from trainflow.workspace.pipelines import OpenedPipeline, PipelineChain
from trainflow.workspace.workspace import Workspace


def file_of(project: Project, *names: tuple[str, str, str]) -> OpenedPipeline:
    workspace = Workspace(project, Settings())
    chains = [PipelineChain("/".join(name), ChainDocument(*name, ""), ChainAccess(), workspace) for name in names]
    return OpenedPipeline(project.root / "p.py", workspace, [], chains)


MAIN, TUNED, SECOND = ("p", "main", "main"), ("p", "main", "tuned"), ("p", "second", "main")


@pytest.mark.parametrize(
    ("names", "stage", "branch", "chosen"),
    [
        ([MAIN], None, None, "p/main/main"),
        ([MAIN, TUNED], None, "tuned", "p/main/tuned"),
        ([MAIN, SECOND], "second", None, "p/second/main"),
        ([MAIN], None, "forked", "p/main/forked"),
        ([MAIN], "second", "forked", "p/second/forked"),
    ],
)
def test_chain_named_is_found(
    tmp_path: Path, names: list[tuple[str, str, str]], stage: str | None, branch: str | None, chosen: str
) -> None:
    (tmp_path / "checkpoints/p/main/forked/ledger").mkdir(parents=True)
    (tmp_path / "checkpoints/p/second/forked/ledger").mkdir(parents=True)
    chain = file_of(project_at(tmp_path), *names).one_chain(stage, branch)

    assert str(chain.key) == chosen


@pytest.mark.parametrize(
    ("names", "stage", "branch"), [([], None, None), ([MAIN, TUNED], None, None), ([MAIN, TUNED], "third", None)]
)
def test_chain_ambiguous_is_refused(
    tmp_path: Path, names: list[tuple[str, str, str]], stage: str | None, branch: str | None
) -> None:
    with pytest.raises(InputError):
        file_of(project_at(tmp_path), *names).one_chain(stage, branch)


def test_chain_that_only_run_can_name(tmp_path: Path) -> None:
    chain = file_of(project_at(tmp_path), ("{{ params.name }}", "main", "main")).one_chain()

    with pytest.raises(InputError, match="only a run renders"):
        _ = chain.key
