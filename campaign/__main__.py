"""`make campaign`: break everything for a while, then look for what was lost, doubled or missed.

python -m campaign --minutes 3 --seed 7
python -m campaign --events 50000 --faults kill,link --report campaign.json
python -m campaign --soak 30 --report soak.json
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from campaign import checker, report
from campaign.controls import CONTROLS, Control
from campaign.environment import can_move_clocks
from campaign.faults import FAULTS
from campaign.found import gather
from campaign.injector import Injector
from campaign.journal import Journal
from campaign.load import Load
from campaign.options import Options, parse
from campaign.plan import night, plan
from campaign.soak import Soak
from campaign.verdict import Verdict
from campaign.world import World

FIRST_FAULT_SECONDS: Final = 5.0
LAST_RECOVERY_SECONDS: Final = 4.0
QUIET_SECONDS: Final = 60.0
PARTING_SECONDS: Final = 2.0  # what served the readers ends with them
UP_SECONDS: Final = 30.0


def main() -> int:
    options = parse(__doc__ or "")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    for name in ("aiormq", "aio_pika"):  # they tell of every connection that we break
        logging.getLogger(name).setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="tidings-campaign-"))
    code = 1
    try:
        code = asyncio.run(_campaign(options, folder))
    except KeyboardInterrupt:
        code = 130
        print("\nstopped")
    finally:
        if code in (0, 130) and not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"Logs, journal and data are kept in {folder}")
    return code


async def _campaign(options: Options, folder: Path) -> int:
    now = datetime.now(UTC)
    length = timedelta(minutes=options.minutes or 20)
    if options.control == "unique-key":  # this process makes indexes, too
        CONTROLS[options.control].switch_off()
    offset = (night(options.seed, now, length) - now).total_seconds()
    print(f"Seed {options.seed}; the house is built in {folder}", flush=True)
    if not can_move_clocks():
        print("No clock will be moved: apt-get install libfaketime", flush=True)
    async with World(folder, offset, options.control) as world:
        journal = Journal(folder / "journal.jsonl")
        start = datetime.now(UTC) + timedelta(seconds=offset)
        load = Load(world.endpoints, options.seed, journal, options.rate, start)
        await world.remember_start()
        await load.prepare(with_a_past=options.soak)
        await world.remember_memory()
        rare = [kind for kind, fault in FAULTS.items() if fault.rare]
        steps = plan(options.seed, options.kinds, rare, options.fault_every)
        injector = Injector(world, steps, load.is_well_since)
        soak = Soak(world) if options.soak else None
        began = time.monotonic()
        await _break(options, world, load, injector, soak)
        elapsed = time.monotonic() - began
        verdict = await _look(world, load, journal, injector, soak)
        _write(options, verdict, world, load, injector, soak, elapsed)
    print(report.table(verdict))
    if unheard := set(options.kinds) - set(verdict.faults):
        print(f"Too short for: {', '.join(sorted(unheard))}")
    for exit_ in world.unexpected_exits:
        print(f"Nobody asked for it: {exit_}")
    if options.control is not None:
        return _judge_control(CONTROLS[options.control], verdict)
    return 0 if verdict.ok and not world.unexpected_exits else 1


def _judge_control(control: Control, verdict: Verdict) -> int:
    """Whether the checker has seen what is missing."""
    seen = {name: verdict.counts[name] for name in control.violations if verdict.counts[name]}
    told = ", ".join(f"{name} {count}" for name, count in seen.items())
    print(f"The checker saw it: {told}." if seen else "The checker saw nothing: it is too weak.")
    return 0 if seen else 1


async def _break(
    options: Options, world: World, load: Load, injector: Injector, soak: Soak | None
) -> None:
    """Load and faults until it is over; at the end all is healed, and nobody sends any more."""
    stop = asyncio.Event()
    loading = asyncio.create_task(load.run())
    telling = asyncio.create_task(_tell(world, load, injector))
    beside = asyncio.create_task(soak.run(stop) if soak else _inject(injector, stop))
    try:
        began = time.monotonic()
        while not options.is_over(time.monotonic() - began, load.accepted, len(injector.injected)):
            for task in (loading, beside):
                if task.done():
                    task.result()
                    raise RuntimeError("it ended before its time")
            await asyncio.sleep(0.2)
        stop.set()
        await beside
        if not await _becomes_up(world):
            world.unexpected_exits.append(f"not up {UP_SECONDS:.0f} s after the last fault")
        await asyncio.sleep(LAST_RECOVERY_SECONDS)
    finally:
        for task in (loading, beside, telling):
            task.cancel()
        await asyncio.gather(loading, beside, telling, return_exceptions=True)


async def _inject(injector: Injector, stop: asyncio.Event) -> None:
    await asyncio.sleep(FIRST_FAULT_SECONDS)
    await injector.run(stop)


async def _becomes_up(world: World) -> bool:
    deadline = time.monotonic() + UP_SECONDS
    while time.monotonic() < deadline:
        if await world.is_up():
            return True
        await asyncio.sleep(0.25)
    return False


async def _look(
    world: World, load: Load, journal: Journal, injector: Injector, soak: Soak | None
) -> Verdict:
    print("\nNo more faults; waiting until it is quiet ...", flush=True)
    await load.stop()
    if not await world.quiet(QUIET_SECONDS):
        print(f"Not quiet after {QUIET_SECONDS:.0f} s: {await world.backlog()}")
    await world.between_fires()
    await load.settle()
    await asyncio.sleep(PARTING_SECONDS)
    facts = await world.facts()
    found = await gather(world.endpoints, journal)
    await world.end_processes()  # what they have in hand is given back, and counts
    found = replace(found, leftovers=(await world.backlog()).places)
    settings = world.endpoints.settings
    verdict = checker.judge(journal, found, injector.injected, facts, settings)
    return verdict if soak is None else verdict.with_more(soak.growth())


async def _tell(world: World, load: Load, injector: Injector) -> None:
    """One line that lives; where there is no terminal, one each ten seconds."""
    began, live = time.monotonic(), sys.stdout.isatty()
    while True:
        await asyncio.sleep(1 if live else 10)
        backlog: object = "?"
        with suppress(Exception):
            backlog = (await world.backlog()).total
        line = (
            f"{timedelta(seconds=round(time.monotonic() - began))}  accepted {load.accepted}"
            f"  indeterminate {load.indeterminate}  refused {load.refused}"
            f"  faults {len(injector.injected)}  backlog {backlog}"
            f"  now {', '.join(injector.active) or '-'}"
        )
        print(f"\r\033[K{line[:150]}" if live else line, end="" if live else "\n", flush=True)


def _write(
    options: Options,
    verdict: Verdict,
    world: World,
    load: Load,
    injector: Injector,
    soak: Soak | None,
    elapsed: float,
) -> None:
    """The checker's report, with what only the campaign knows."""
    report.write_json(options.report, verdict)
    written: dict[str, Any] = json.loads(options.report.read_text())
    written["campaign"] = {
        "command": " ".join([sys.executable, "-m", "campaign", *sys.argv[1:]]),
        "seed": options.seed,
        "elapsed_seconds": round(elapsed, 1),
        "kinds": options.kinds,
        "accepted": load.accepted,
        "indeterminate": load.indeterminate,
        "refused": load.refused,
        "unexpected_exits": world.unexpected_exits,
        "restarts": world.restarts,
        "faults": Counter(fault.kind for fault in injector.injected),
        "impossible": injector.impossible,
        "injected": [asdict(fault) for fault in injector.injected],
    }
    if soak is not None:
        written["soak"] = soak.as_json()
        soak.draw(options.report.with_suffix(".svg"))
    options.report.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
