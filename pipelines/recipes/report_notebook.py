"""The report's numbers as a marimo notebook, for analyses of your own: `marimo edit report_notebook.py`.

The environment needs this project and marimo. dlt's configuration says where the data is, as for the commands
(`DESTINATION_TYPE=duckdb`, `DESTINATION__DUCKDB__CREDENTIALS=autopilot.duckdb`). Nothing is written.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, var-annotated"
# Cells have no types, because marimo rewrites their signatures whenever their variables change.

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Autopilot's emails")


@app.cell
def _():
    import datetime as dt

    import marimo as mo

    from autopilothq import inspect
    from autopilothq.report import read_report, report_dict

    def read(**choice):
        """Returns the report's numbers, for all mail or for the mail that is chosen."""
        with inspect.reading() as dataset:
            return report_dict(read_report(dataset, dt.datetime.now(dt.UTC), **choice))

    def rows(part):
        """Returns a part as a table, or why it is absent. Names of nested numbers begin with their part's name."""
        if isinstance(part, dict) and "absent" in part:
            return mo.md(part["absent"])
        return mo.ui.table([flat(row) for row in (part if isinstance(part, list) else [part])], selection=None)

    def flat(row):
        cells = {}
        for name, value in row.items():
            if isinstance(value, dict):
                cells |= {f"{name} {inner}": cell for inner, cell in value.items()}
            elif not isinstance(value, list):
                cells[name] = value
        return cells

    return dt, mo, read, rows


@app.cell
def _(dt, mo, read):
    everything = read()
    first, last = (dt.datetime.fromisoformat(everything["period"][name]).date() for name in ("first", "last"))
    known = everything["journeys"] if isinstance(everything["journeys"], list) else []
    days = mo.ui.date_range(start=first, stop=last, value=(first, last), label="Mail sent")
    journeys = mo.ui.multiselect([journey["name"] for journey in known if journey["name"]], label="Journeys")
    mo.hstack([days, journeys])
    return days, journeys


@app.cell
def _(days, dt, journeys, mo, read, rows):
    since, until = days.value
    numbers = read(
        since=dt.datetime.combine(since, dt.time.min, dt.UTC),
        until=dt.datetime.combine(until, dt.time.max, dt.UTC),
        journeys=journeys.value,
    )
    mo.md(f"Mail delivered before {numbers['period'].get('rated_until')} is rated. A row's unit is people x emails.")
    parts = {name: rows(numbers[name]) for name in ("totals", "journeys", "links", "domains", "days")}
    mo.ui.tabs(parts)
    return (numbers,)


@app.cell
def _(mo, numbers):
    # From here on it is yours. An example: how many mails were opened, by weekday.
    sent = numbers["sending"] if isinstance(numbers["sending"], list) else []
    weekdays = [
        {
            "weekday": name,
            "rated": sum(hour["rated"] for hour in sent if hour["weekday"] == day),
            "opened": sum(hour["opened"] for hour in sent if hour["weekday"] == day),
        }
        for day, name in enumerate(("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"))
    ]
    mo.ui.table(weekdays, selection=None)
    return (weekdays,)


if __name__ == "__main__":
    app.run()
