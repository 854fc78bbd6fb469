"""Runs the recipes with the programs that they are for.

Dagster and Airflow run theirs, systemd checks its units, and marimo runs the notebook's cells. A workflow's steps run
in a new clone, with a real PostgreSQL and S3, and `dlt deploy` deploys the script.

Each program has an environment of its own in `build/recipes`, which the first call creates: Airflow's takes minutes.
"""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
import yaml

import environments
from autopilothq import sample
from servers import S3
from test_recipes import PROGRAM, RECIPES, install, unit, workflow

ROOT = RECIPES.parents[1]
HERE = Path(__file__).parent
HOME = ROOT / "build" / "recipes"
ARCHIVE_URL = "SOURCES__AUTOPILOTHQ__ARCHIVE_URL"


def environment(name: str, *packages: str) -> Path:
    """Returns the folder of programs in an environment with `packages`, in the versions that the tests use."""
    return environments.environment(HOME / name, *packages, constraint=ROOT / "constraints.txt")


def ran(*words: "str | Path", cwd: "str | Path" = ".", **env: str) -> str:
    """Runs a program that must succeed, and returns what it printed."""
    done = subprocess.run(words, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def known(printed: str) -> dict[str, Any]:
    """Returns the last line that a driver printed, which is JSON."""
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A week of events with an invalid line on the fourth day; the settings of all started programs name it."""
    sample.write("archive", events=2000)
    day = next(Path("archive").rglob("1551657600000"))
    with gzip.open(day / "1551657600001.bad.1.gz", "wt") as file:
        file.write("oops\n")
    monkeypatch.setenv(ARCHIVE_URL, str(Path("archive").absolute()))
    monkeypatch.setenv("DESTINATION_TYPE", "duckdb")
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", str(Path("events.duckdb").absolute()))
    return Path("archive")


def loaded(query: str) -> list[Any]:
    """Returns the first column of a query's rows."""
    with duckdb.connect("events.duckdb", read_only=True) as con:
        con.execute("USE autopilothq; SET TimeZone = 'UTC'")
        return [row[0] for row in con.execute(query).fetchall()]


LINES_OF_DAY = """
    SELECT sum(lines)::int FROM _audit
    GROUP BY regexp_extract(file, '/(\\d{13})/', 1) ORDER BY regexp_extract(file, '/(\\d{13})/', 1)
"""
DAYS = "SELECT DISTINCT received_at::date::text FROM tracks ORDER BY 1"


def lines_of_days(archive: Path) -> list[int]:
    """Returns the number of lines in each day folder, without blank ones."""
    folders = sorted(next(archive.glob("*/*")).glob("1*"))
    return [
        sum(bool(line.strip()) for file in folder.iterdir() for line in gzip.decompress(file.read_bytes()).splitlines())
        for folder in folders
    ]


def test_dagster(archive: Path) -> None:
    programs = environment("dagster", "--editable", str(ROOT), "dagster==1.13.*")
    ran(programs / "dagster", "definitions", "validate", "-f", RECIPES / "dagster_assets.py")
    seen = known(ran(programs / "python", HERE / "run_dagster.py"))
    lines = lines_of_days(archive)
    day, days, hourly = seen["day"], seen["failed"], seen["hourly"]
    assert [run["lines"] for run in (day, days, hourly)] == [lines[2], sum(lines[3:5]), sum(lines) - sum(lines[2:5])]
    assert (days["rejected"], days["rejects/not_json"], days["rows/_rejects"]) == (1, 1, 1)
    assert (days["why"], days["retries"]) == ("1 rejected, more than 0; the rest is loaded", 0)
    assert seen["range"]["lines"] == 0  # everything else is loaded
    for table in ("tracks", "email_opened", "_audit"):
        rows = sum(run[f"rows/{table}"] for run in (day, days, hourly))
        assert loaded(f"SELECT count(*) FROM {table}") == [rows]
    assert loaded(LINES_OF_DAY) == lines
    assert seen["partitions"] == ["2019-03-03", "2019-03-04", "2019-03-05"]
    assert (seen["schedules"], seen["requests"]) == (["17 * * * *"], 1)
    assert re.fullmatch("Another run .+ is at work. Try again when it is done, .+", seen["busy"])


def test_airflow(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = environment("airflow", "--editable", str(ROOT), "apache-airflow==3.3.*")
    Path("dags").mkdir()
    shutil.copy(RECIPES / "airflow_dag.py", "dags")
    home = {
        "AIRFLOW_HOME": str(Path("airflow").absolute()),
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path("dags").absolute()),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # The destination's secrets come from Airflow's own store.
        "AIRFLOW_VAR_DLT_SECRETS_TOML": f"destination.duckdb.credentials = '{Path('events.duckdb').absolute()}'",
    }
    monkeypatch.delenv("DESTINATION__DUCKDB__CREDENTIALS")
    ran(programs / "airflow", "db", "migrate", **home)
    ends = [f"2019-03-0{day}T02:00:00+00:00" for day in (3, 4, 5)]
    seen = known(ran(programs / "python", HERE / "run_airflow.py", "dags", *ends, **home))
    assert seen["errors"] == {}
    assert seen["dag"] == [True, 1, "2019-03-01T00:00:00+00:00", [3]]
    # The second run failed, and is not retried, because of the invalid line.
    states = ["success", "failed", "success"]
    assert [run["state"] for run in seen["runs"]] == [[state, state] for state in states]
    assert [run["interval"][1] for run in seen["runs"]] == ends
    # From 2 o'clock to 2 o'clock, the interval touches two days; what the previous run loaded is skipped.
    lines = lines_of_days(archive)
    first, failed, third = (run["xcom"] for run in seen["runs"])
    assert ([first["lines"], third["lines"]], failed) == ([lines[1] + lines[2], lines[4]], None)
    assert [first["files_known"], third["files_known"]] == [0, 3]
    assert loaded(DAYS) == ["2019-03-02", "2019-03-03", "2019-03-04", "2019-03-05"]
    assert loaded(LINES_OF_DAY) == lines[1:5]


def test_marimo(archive: Path) -> None:
    programs = environment("marimo", "--editable", str(ROOT), "marimo==0.25.*")
    ran(Path(sys.executable).with_name("autopilothq"), "load", "archive", str(archive))
    shutil.copy(RECIPES / "report_notebook.py", ".")
    driver = (
        "import json, report_notebook; _, found = report_notebook.app.run();"
        "print(json.dumps([found['numbers']['totals']['deliveries'], sum(day['rated'] for day in found['weekdays']),"
        " found['numbers']['totals']['rated']]))"
    )
    deliveries, by_weekday, rated = known(ran(programs / "python", "-c", driver))
    assert [deliveries] == loaded("SELECT count(*) FROM email_delivered")
    assert by_weekday == rated


def test_systemd(archive: Path, tmp_path: Path) -> None:
    next(archive.rglob("*.bad.1.gz")).unlink()  # because the unit fails if a line is rejected
    program = str(install(tmp_path, PROGRAM))
    names = ("autopilothq.service", "autopilothq.timer", "autopilothq-receive.service")
    for name in names:
        (tmp_path / name).write_text((RECIPES / name).read_text().replace("/opt/autopilothq/bin/autopilothq", program))
    said = ran("systemd-analyze", "verify", *(tmp_path / name for name in names))
    assert said == ""
    assert "Next elapse" in ran("systemd-analyze", "calendar", unit("autopilothq.timer")["Timer"]["OnCalendar"])
    ran(
        "sh",
        "-c",
        unit("autopilothq.service")["Service"]["ExecStart"].replace("/opt/autopilothq/bin/autopilothq", program),
    )
    assert loaded(LINES_OF_DAY) == lines_of_days(archive)


# A workflow's steps --------------------------------------------------------------------------------------------------


def cloned(*paths: str) -> Path:
    """Returns a new clone of a repository with some of this project's files, as if it were on GitHub."""
    git = ("git", "-c", "user.name=check", "-c", "user.email=check@example.com")
    for path in paths:
        target = Path("repository") / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, target)
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "check")):
        ran(*git, *words, cwd="repository")
    ran("git", "clone", "--quiet", "repository", "clone")
    ran("git", "remote", "set-url", "origin", "https://github.com/example/warehouse.git", cwd="clone")
    return Path("clone")


@pytest.fixture
def copied(archive: Path, s3: S3) -> str:
    """Copies the archive into a bucket, without the invalid line, with which the run would fail; returns its URL."""
    import s3fs

    next(archive.rglob("*.bad.1.gz")).unlink()
    fs = s3fs.S3FileSystem(**s3.storage_options, skip_instance_cache=True)
    url = f"{s3.bucket()}/"
    fs.put(f"{next(archive.glob('*'))}", url, recursive=True)
    return url


def test_github_workflow(archive: Path, copied: str, s3: S3, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ARCHIVE_URL, "DESTINATION_TYPE", "DESTINATION__DUCKDB__CREDENTIALS"):
        monkeypatch.delenv(name)
    clone = cloned("pipelines", "pyproject.toml", "requirements.lock", "README.md", "LICENSE")
    programs = environment("actions")
    (job,) = workflow()["jobs"].values()
    stored = {
        "vars.ARCHIVE_URL": copied,
        "secrets.AWS_ACCESS_KEY_ID": s3.access_key,
        "secrets.AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "secrets.POSTGRES_CREDENTIALS": postgres,
    }
    # A setting that this bucket needs because it is not Amazon's.
    elsewhere = {"SOURCES__AUTOPILOTHQ__CREDENTIALS__ENDPOINT_URL": s3.endpoint_url}

    def steps(runner: str, **inputs: str) -> str:
        """Runs all steps as GitHub's runner does on a new machine; returns what they printed."""
        values = stored | {"inputs.since": "", "inputs.until": ""} | {f"inputs.{k}": v for k, v in inputs.items()}

        def filled(env: dict[str, str]) -> dict[str, str]:
            return {k: re.sub(r"\$\{\{ ([\w.]+) \}\}", lambda word: values[word[1]], v) for k, v in env.items()}

        machine = {"PATH": f"{programs}:{os.environ['PATH']}", "DLT_DATA_DIR": str(Path(runner).absolute())}
        return "".join(
            ran(
                "bash",
                "-e",
                "-c",
                step["run"],
                cwd=clone,
                **machine,
                **elsewhere,
                **filled(job["env"] | step.get("env", {})),
            )
            for step in job["steps"]
            if "run" in step
        )

    lines = lines_of_days(archive)
    assert f"{sum(lines[2:4]):,} lines" in steps("first", since="2019-03-03", until="2019-03-04")
    assert f"{sum(lines) - sum(lines[2:4]):,} lines" in steps("second")
    assert "\n0 lines" in steps("third")
    with closing(psycopg2.connect(postgres)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT sum(lines) FROM autopilothq._audit")
        assert cursor.fetchall() == [(sum(lines),)]
        cursor.execute("SELECT count(*) - count(DISTINCT id) FROM autopilothq.tracks")
        assert cursor.fetchall() == [(0,)]


# dlt deploy ----------------------------------------------------------------------------------------------------------

# Files in the form of those that dlt gets from a repository of its makers, which is not reachable from everywhere.
TEMPLATE = {
    "github-action/requirements_blacklist.txt": "pip\n",
    "github-action/run_pipeline_workflow.yml": """
name: Run pipeline
"on": {push: , schedule: [{cron: "*/5 * * * *"}], workflow_dispatch: }
env:
jobs: {run_pipeline: {runs-on: ubuntu-latest, steps: [{uses: actions/checkout@v4}, {run: python pipeline.py}]}}
""",
    "airflow-composer/dag_template.py": "from pipeline_or_source_script import source\n",
    "airflow-composer/cloudbuild.yaml": "steps: []\n",
}
SCRIPT = "pipelines/autopilothq_pipeline.py"


@pytest.fixture
def deployed(archive: Path) -> tuple[Path, Path]:
    """A clone in which the script ran, and the folder of programs in an environment with `dlt[cli]`."""
    for name, text in TEMPLATE.items():
        Path("template", name).parent.mkdir(parents=True, exist_ok=True)
        Path("template", name).write_text(text)
    programs = environment("deploy", "--editable", str(ROOT), "dlt[cli]", "psutil")
    clone = cloned(SCRIPT, ".dlt/config.toml")
    ran(programs / "python", clone / SCRIPT, archive)
    return clone, programs


def deploy(deployed: tuple[Path, Path], *words: str) -> str:
    clone, programs = deployed
    return ran(programs / "dlt", "deploy", SCRIPT, *words, "--location", Path("template").absolute(), cwd=clone)


def test_dlt_deploys_a_workflow(archive: Path, deployed: tuple[Path, Path]) -> None:
    clone, programs = deployed
    # Run there without an argument, so that dlt has seen the setting.
    ran(programs / "python", SCRIPT, cwd=clone)
    said = deploy(deployed, "github-action", "--schedule", "17 * * * *")
    assert "Your github-action deployment for pipeline autopilot_events" in said
    flow = yaml.safe_load((clone / ".github/workflows/run_autopilot_events_workflow.yml").read_text())
    assert flow["env"][ARCHIVE_URL] == os.environ[ARCHIVE_URL]
    assert flow["on"]["schedule"] == [{"cron": "17 * * * *"}]
    step = flow["jobs"]["run_pipeline"]["steps"][-1]["run"]
    assert step == "cd 'pipelines' && python 'autopilothq_pipeline.py'"
    assert "dlt-autopilothq" in (clone / "requirements_github_action.txt").read_text()
    ran(
        "bash",
        "-e",
        "-c",
        step,
        cwd=clone,
        PATH=f"{programs}:{os.environ['PATH']}",
        DLT_DATA_DIR=str(Path("runner").absolute()),
    )
    assert loaded(LINES_OF_DAY) == lines_of_days(archive)


def test_dlt_deploys_a_dag(deployed: tuple[Path, Path]) -> None:
    clone, programs = deployed
    ran(programs / "python", SCRIPT, cwd=clone)
    said = deploy(deployed, "airflow-composer")
    assert f'[sources.autopilothq]\narchive_url = "{os.environ[ARCHIVE_URL]}"' in said
    assert (clone / "dags/dag_autopilot_events.py").exists()
    assert (clone / "build/cloudbuild.yaml").exists()
