"""The main image: built from this checkout, run as KFP runs it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import dsl, local
from packaging.utils import canonicalize_name

from components.profiles import MAIN

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
DOCKER = "/usr/bin/docker"
HOME = "/tmp"  # noqa: S108  # the image's, where any user may write
Runner = Callable[..., local.DockerRunner]


def in_image(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [DOCKER, "run", "--rm", "--network", "host", *options, image, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def names_and_versions(listed: str) -> dict[str, str]:
    pairs = (line.split()[0].split("==") for line in listed.splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def test_steps_are_nobody_special(main_image: str) -> None:
    assert in_image(main_image, "id", "--user") == "10001"
    # A cluster may choose any user: it has no name and no home, and writes where it may.
    options = ("--user", "54321:54321", "--read-only", "--tmpfs", HOME, "--cap-drop", "ALL")
    code = "import getpass, pathlib; print(getpass.getuser(), pathlib.Path.home())"
    assert in_image(main_image, "python3", "-c", code, options=options) == f"matjip {HOME}"


def test_packages_are_the_locked_ones_and_no_folder_of_ours_hides_one(main_image: str) -> None:
    code = (
        "import mlflow, torch, data.contract, pipelines;"
        "print(*(m.__file__ for m in (mlflow, torch, data.contract, pipelines)), sep='\\n')"
    )
    found = [Path(line) for line in in_image(main_image, "python3", "-c", code).splitlines()]
    assert {path.relative_to("/opt/matjip").parts[2] for path in found} == {"site-packages"}
    assert found[0].parts[-2:] == ("mlflow", "__init__.py")
    installed = names_and_versions(in_image(main_image, "pip", "list", "--format", "freeze"))
    locked = names_and_versions(Path("locks/main.txt").read_text(encoding="utf-8"))
    assert locked.items() <= installed.items()
    assert installed.keys() - locked.keys() == {"torch", "pip", "matjip"}


def test_modules_are_compiled_and_nothing_of_the_build_stays(main_image: str) -> None:
    site = "/opt/matjip/lib/python3.11/site-packages"
    compiled = in_image(main_image, "ls", f"{site}/mlflow/__pycache__", f"{site}/data/__pycache__")
    assert compiled.count("__init__.cpython-311.pyc") == 2
    assert in_image(main_image, "find", "/mnt", "-type", "f") == ""
    environment = in_image(main_image, "env")
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert "PIP_" not in environment


@dsl.component(base_image=MAIN, install_kfp_package=False)
def keep(given: str, folder: dsl.Output[dsl.Dataset]) -> None:
    from pathlib import Path

    Path(folder.path).mkdir(parents=True)
    (Path(folder.path) / "given.txt").write_text(given, encoding="utf-8")


@dsl.component(base_image=MAIN, install_kfp_package=False)
def read_again(folder: dsl.Input[dsl.Dataset]) -> str:
    from pathlib import Path

    return (Path(folder.path) / "given.txt").read_text(encoding="utf-8")


@dsl.component(base_image=MAIN, install_kfp_package=False)
def refuse(why: str) -> str:
    from data.errors import ContractError

    raise ContractError(why)


@pytest.mark.parametrize("user", [None, f"{os.getuid()}:{os.getgid()}", "54321:0"])
def test_two_steps_hand_over_an_artifact(
    main_image: str, container_root: Path, docker_runner: Runner, user: str | None
) -> None:
    @dsl.pipeline
    def two_steps(given: str) -> str:
        first = keep(given=given).set_container_image(main_image)
        second = read_again(folder=first.outputs["folder"]).set_container_image(main_image)
        return second.output

    options = {"user": user} if user else {}
    local.init(docker_runner(**options), pipeline_root=str(container_root))
    # What a shell would take apart arrives whole.
    given = "국물이 '진짜' \"끝내\" $HOME `id` \\n 줌 😋"
    done = two_steps(given=given)
    assert done.output == given
    written = list(container_root.rglob("given.txt"))
    assert [path.read_text(encoding="utf-8") for path in written] == [given]
    assert {path.stat().st_uid for path in written} == {int((user or "10001").split(":")[0])}


def test_a_step_that_raises_fails_the_run(
    main_image: str,
    container_root: Path,
    docker_runner: Runner,
    capfd: pytest.CaptureFixture[str],
) -> None:
    @dsl.pipeline
    def failing(why: str) -> str:
        return refuse(why=why).set_container_image(main_image).output

    local.init(docker_runner(), pipeline_root=str(container_root))
    with pytest.raises(RuntimeError, match="refuse"):
        failing(why="강도가 9입니다")
    assert "ContractError: 강도가 9입니다" in capfd.readouterr().out


def test_the_build_says_what_is_wrong() -> None:
    for arguments, said in (
        (["--bas", "x"], "unknown argument '--bas'"),
        (["--base"], "--base needs a value"),
    ):
        done = subprocess.run(
            ["components/images/build", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert said in done.stderr
    absent = {"DOCKER_HOST": "unix:///nowhere/docker.sock", "DOCKER": DOCKER}
    done = subprocess.run(
        ["components/images/build"],
        env=os.environ | absent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no container engine answers" in done.stderr
