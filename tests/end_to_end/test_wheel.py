from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_an_installed_wheel_runs_a_recipe_by_name(tmp_path: Path, environment: dict[str, str]) -> None:
    """Build the wheel, install it into an environment of its own beside this one's libraries, run it elsewhere."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, env=environment)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True
    ).stdout.decode()
    (Path(site.strip()) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = [python, "-c", "import lurefs; print(lurefs.__file__)"]
    found = subprocess.run(where, check=True, capture_output=True, cwd=tmp_path).stdout.decode()
    assert found.startswith(str(tmp_path / "venv"))
    command = [tmp_path / "venv" / "bin" / "lurefs", "run", "--config", "smoke", "learner.epochs=1"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / "smoke" / "report.html").exists()
    listed = subprocess.run([*command[:1], "run", "--config", "quickstart", "--dry-run"], cwd=tmp_path, env=environment)
    assert listed.returncode == 0
