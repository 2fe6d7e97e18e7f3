"""Records of a perf.data -> where each one lies, when it was made and in which order `perf script` delivers it.

The records of all CPUs come in rounds: in each, every CPU's buffer is written as it was at that moment. When a round is finished,
all that is not later than the greatest time of the round before is delivered, sorted by time; equal times stay in the order of the
file. A record without a time is delivered at once. Source: Linux, tools/perf/util/ordered-events.c (`ordered_events__queue`,
`__ordered_events__flush`) and session.c (`perf_session__process_event`, `process_finished_round`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .loops import index, loop, part
from .perfattrs import CALLCHAIN, CPU, RAW, READ, TID, TIME, Attr
from .perfheader import AUXTRACE, COMPRESSED2_RECORD, COMPRESSED_RECORD, FINISHED_ROUND, HEADER_TRACING_DATA
from .ringbuffer import word

Array = npt.NDArray[Any]

#: Types of the kernel's own records are below this: include/uapi/linux/perf_event.h, `enum perf_event_type`.
RECORD_TYPES: Final = 64
LOST: Final = 2
COMM: Final = 3
EXIT: Final = 4
FORK: Final = 7
SAMPLE: Final = 9
LOST_SAMPLES: Final = 13

#: More CPUs than Linux runs on: NR_CPUS is at most 8192.
MOST_CPUS: Final = 1 << 16

#: Why `scan` came back.
DONE: Final = 0
FULL: Final = 1
BROKEN: Final = 2
CUT_OFF: Final = 3
ROUND_OVER: Final = 4

#: What `scan` goes on from: the next word; the round and the greatest times so far, up to its start, up to the start of the one before;
#: how many records are queued; whether they are out of order; how many COMM records there were; the least time; whether to come back
#: after a round; how many samples were of no known event, and how many could not be read.
(AT, ROUND, LATEST, LATEST_BEFORE, FLUSHED, QUEUED, DISORDER, COMMS, EARLIEST, STOP, UNKNOWN, UNREADABLE) = range(12)
STATE: Final = 12
_NEVER: Final = (1 << 63) - 1

#: Ids of events are small numbers that the kernel counts up; this many are looked up directly.
_MOST_DENSE: Final = 1 << 20
#: So many records in a row that could be ones are taken for real ones.
_CHAIN: Final = 4


class Layouts(NamedTuple):
    """Where records have their values, in words of 4 bytes; arrays have a number for each attribute, -1 for what it has not.

    Attributes:
        swapped: 1 where the file is big endian.
        id_at: of a sample the word of its id, -1: all samples are of the first attribute.
        id_back: of other records how many words before their end their id is, -1 as before.
        size: words of a sample up to the first value of no fixed size.
        tid, time, cpu: in a sample; `tid` is that of the pair of process and thread.
        read_once, read_each: how many words its READ value has, and how many for each event of a group.
        chain, raw: 1 where samples have a call chain, raw data.
        varies: 1 where what comes before raw data is not always of one size.
        end: words that other records end with.
        end_tid, end_time, end_cpu: in those.
    """

    swapped: int
    id_at: int
    id_back: int
    size: Array
    tid: Array
    time: Array
    cpu: Array
    read_once: Array
    read_each: Array
    chain: Array
    raw: Array
    varies: Array
    end: Array
    end_tid: Array
    end_time: Array
    end_cpu: Array

    @classmethod
    def of(cls, attrs: Sequence[Attr], order: str) -> Layouts:
        """Of a file with these attributes, which agree on where ids are."""
        several = len(attrs) > 1
        reads = [attr.read_values if attr.has(READ) else (0, 0) for attr in attrs]
        tid, time, cpu = (_numbers(attr.in_sample(bit) // 4 for attr in attrs) for bit in (TID, TIME, CPU))
        end_tid, end_time, end_cpu = (_numbers(attr.at_end(bit) // 4 for attr in attrs) for bit in (TID, TIME, CPU))
        return cls(
            swapped=int(order == "big"),
            id_at=attrs[0].id_in_sample // 4 if several else -1,
            id_back=attrs[0].id_from_end // 4 if several else -1,
            size=_numbers(attr.sample_size // 4 for attr in attrs),
            tid=tid,
            time=time,
            cpu=cpu,
            read_once=_numbers(once * 2 for once, _ in reads),
            read_each=_numbers(each * 2 for _, each in reads),
            chain=_numbers(attr.has(CALLCHAIN) for attr in attrs),
            raw=_numbers(attr.has(RAW) for attr in attrs),
            varies=_numbers(attr.has(CALLCHAIN) or attr.has(READ) for attr in attrs),
            end=_numbers(attr.end_size // 4 for attr in attrs),
            end_tid=end_tid,
            end_time=end_time,
            end_cpu=end_cpu,
        )


def _numbers(values: Iterable[int]) -> Array:
    return np.array(list(values), np.int64)


class Ids(NamedTuple):
    """Which attribute an id belongs to.

    Attributes:
        low: the id that `dense` starts with.
        dense: int64, for an id the attribute, -1 for none.
        keys, attrs: int64, all ids sorted, and their attributes.
    """

    low: int
    dense: Array
    keys: Array
    attrs: Array

    @classmethod
    def of(cls, attrs: Sequence[Attr]) -> Ids:
        """The ids of the attributes; of two that have the same the first counts."""
        ids = {(number ^ 1 << 63) - (1 << 63): i for i, attr in reversed(list(enumerate(attrs))) for number in attr.ids}
        keys = np.array(sorted(ids), np.int64)
        owners = np.array([ids[key] for key in keys.tolist()], np.int64)
        low = int(keys[keys >= 0][0]) if (keys >= 0).any() else 0
        near = (keys >= low) & (keys < min(low + _MOST_DENSE, _NEVER))
        dense = np.full(int(keys[near][-1]) - low + 1 if near.any() else 0, -1, np.int64)
        dense[keys[near] - low] = owners[near]
        return cls(low, dense, keys, owners)


class Queue(NamedTuple):
    """Records that were found and not delivered yet, in the order of the file.

    Attributes:
        starts: int64, the word where each starts.
        times: int64, ns.
        sources: int32, the attribute of a sample; the number of attributes and the record's type for others.
        turns: int64, when it is delivered: 2 * round for those without a time, 2 * round + 1 for those that its end releases.
        notes: int64, of a COMM record how many came before; of others the time of the record before on the same CPU, 0 for none.
        cpus: int32, -1 where it is not recorded.
    """

    starts: Array
    times: Array
    sources: Array
    turns: Array
    notes: Array
    cpus: Array

    @classmethod
    def room(cls, records: int) -> Queue:
        """Room for so many records."""
        return cls(*(np.empty(records, np.int32 if name in ("sources", "cpus") else np.int64) for name in cls._fields))


def new_state(at: int) -> Array:
    """The state to begin with at word `at`."""
    state = np.zeros(STATE, np.int64)
    state[AT], state[EARLIEST] = at, _NEVER
    return state


@part
def word64(words: Array, at: int, swapped: int) -> int:
    """The double word at `at` as a signed number."""
    low, high = word(words, at, swapped), word(words, at + 1, swapped)
    if swapped:
        low, high = high, low
    if high >= 1 << 31:
        high -= 1 << 32
    return (high << 32) | low


@part
def signed32(words: Array, at: int, swapped: int) -> int:
    """The word at `at` as a signed number."""
    value = word(words, at, swapped)
    return value - (1 << 32) if value >= 1 << 31 else value


@part
def attr_of(ids: Ids, number: int) -> int:
    """The attribute that an id belongs to, -1 for none; perf's own records may have id 0, which is the first one's."""
    if number == 0:
        return 0
    if number >= ids.low:
        # The difference of two such numbers can overflow only to below 0.
        near = number - ids.low
        if 0 <= near < len(ids.dense):
            return int(ids.dense[near])
    low, high = 0, len(ids.keys)
    while low < high:
        middle = (low + high) // 2
        if ids.keys[middle] < number:
            low = middle + 1
        else:
            high = middle
    return int(ids.attrs[low]) if low < len(ids.keys) and ids.keys[low] == number else -1


@part
def chain_of(words: Array, start: int, end: int, layouts: Layouts, attr: int) -> int:
    """The word where a sample has its call chain, or what comes instead; -1 where its READ value does not fit before `end`."""
    at = start + layouts.size[attr]
    if layouts.read_each[attr]:
        if at + 2 > end:
            return -1
        events = word64(words, at, layouts.swapped)
        if not 0 <= events <= end - at:
            return -1
        at += events * layouts.read_each[attr]
    at += layouts.read_once[attr]
    return at if at <= end else -1


@part
def raw_of(words: Array, at: int, end: int, layouts: Layouts, attr: int) -> int:
    """The word where a sample whose call chain would be at `at` has its raw data, -1 where the chain or they do not fit before `end`."""
    if at < 0:
        return -1
    if layouts.chain[attr]:
        if at + 2 > end:
            return -1
        calls = word64(words, at, layouts.swapped)
        if not 0 <= calls <= (end - at - 2) // 2:
            return -1
        at += 2 + 2 * calls
    if layouts.raw[attr] and (at + 1 > end or word(words, at, layouts.swapped) > 4 * (end - at - 1)):
        return -1
    return at


@part
def end_attr(words: Array, at: int, stop: int, layouts: Layouts, ids: Ids) -> int:
    """The attribute that says how a record that is no sample, from `at` to `stop`, ends."""
    if layouts.id_back < 0 or at + 2 + layouts.id_back > stop:
        return 0
    return max(attr_of(ids, word64(words, stop - layouts.id_back, layouts.swapped)), 0)


@loop
def scan(  # noqa: C901, PLR0912, PLR0915 -- one loop, as calls would cost as much as the work
    words: Array, end: int, layouts: Layouts, ids: Ids, keep: Array, state: Array, queue: Queue, counts: Array, shortest: Array, cpus: Array
) -> int:
    """Go through the records up to word `end`; returns why it stopped: DONE, FULL, BROKEN, CUT_OFF, ROUND_OVER.

    Args:
        words: uint32.
        end: one past the last word.
        layouts: of the attributes.
        ids: of the attributes.
        keep: int64, for each source whether its records are queued.
        state: STATE numbers, see there.
        queue: where records go that are kept.
        counts: int64, for each source how many records were seen; counted on.
        shortest: int64, for each source the bytes of its shortest raw data; kept up.
        cpus: int64, for each CPU the time of its last record; kept up.
    """
    # Numbers that are kept up are held here: as elements of arrays they would be stored after every record.
    swapped = layouts.swapped
    attrs, most_cpus, room = len(layouts.size), len(cpus), len(queue.starts)
    at, rounds, latest, latest_before, flushed = state[AT], state[ROUND], state[LATEST], state[LATEST_BEFORE], state[FLUSHED]
    queued, disorder, comms, earliest, unknown, unreadable = (
        state[QUEUED],
        state[DISORDER],
        state[COMMS],
        state[EARLIEST],
        state[UNKNOWN],
        state[UNREADABLE],
    )
    why = DONE
    while at < end:
        if at + 2 > end:
            why = CUT_OFF
            break
        kind = word(words, at, swapped)
        sized = word(words, at + 1, swapped)
        size = sized & 0xFFFF if swapped else sized >> 16
        stop = at + size // 4
        if size < 8 or size % 4:
            why = BROKEN
            break
        if stop > end:
            why = CUT_OFF
            break
        if kind >= RECORD_TYPES:
            if kind == AUXTRACE or kind == HEADER_TRACING_DATA:
                if size < 16:
                    why = BROKEN
                    break
                # What belongs to these records comes after them.
                more = word64(words, at + 2, swapped) if kind == AUXTRACE else word(words, at + 2, swapped)
                if not 0 <= more <= 4 * (end - stop) or stop + (more + 7) // 8 * 2 > end:
                    why = CUT_OFF
                    break
                stop += (more + 7) // 8 * 2
            at = stop
            if kind == FINISHED_ROUND:
                rounds += 1
                flushed = latest_before
                latest_before = latest
                if state[STOP]:
                    why = ROUND_OVER
                    break
            continue
        if kind == SAMPLE:
            source = 0
            if layouts.id_at >= 0:
                source = attr_of(ids, word64(words, at + layouts.id_at, swapped)) if at + layouts.id_at + 2 <= stop else -1
            if source < 0:
                at = stop
                unknown += 1
                continue
            base = at
            body = at + layouts.size[index(source)]
            if body > stop:
                body = -1
            elif layouts.varies[index(source)]:
                body = raw_of(words, chain_of(words, at, stop, layouts, source), stop, layouts, source)
            elif layouts.raw[index(source)] and (body == stop or word(words, body, swapped) > 4 * (stop - body - 1)):
                body = -1
            if body < 0:
                at = stop
                unreadable += 1
                continue
            length = word(words, body, swapped) if layouts.raw[index(source)] else 0
            time_at = layouts.time[index(source)]
            cpu_at = layouts.cpu[index(source)]
        else:
            attr = end_attr(words, at, stop, layouts, ids)
            source = attrs + kind
            base = stop - layouts.end[index(attr)]
            time_at = layouts.end_time[index(attr)]
            cpu_at = layouts.end_cpu[index(attr)]
            if base < at + 2:
                base = stop
                time_at = -1
                cpu_at = -1
            length = 4 * (base - at)
        if keep[index(source)] and queued == room:
            why = FULL
            break
        shortest[index(source)] = min(shortest[index(source)], length)
        counts[index(source)] += 1
        time = max(word64(words, base + time_at, swapped), 0) if time_at >= 0 else 0
        cpu = signed32(words, base + cpu_at, swapped) if cpu_at >= 0 else -1
        turn = 2 * rounds
        late = rounds > 0
        before = 0
        if time:
            if 0 <= cpu < most_cpus:
                before = cpus[index(cpu)]
                cpus[index(cpu)] = time
            turn += 1 if time <= latest_before else 3
            late = time < flushed
            latest = max(latest, time)
            earliest = min(earliest, time)
        if keep[index(source)]:
            queue.starts[index(queued)] = at
            queue.times[index(queued)] = time
            queue.sources[index(queued)] = source
            queue.turns[index(queued)] = turn
            queue.notes[index(queued)] = comms if kind == COMM else before
            queue.cpus[index(queued)] = cpu
            queued += 1
            if late:
                disorder = 1
        if kind == COMM:
            comms += 1
        at = stop
    state[AT], state[ROUND], state[LATEST], state[LATEST_BEFORE], state[FLUSHED] = at, rounds, latest, latest_before, flushed
    state[QUEUED], state[DISORDER], state[COMMS], state[EARLIEST] = queued, disorder, comms, earliest
    state[UNKNOWN], state[UNREADABLE] = unknown, unreadable
    return why


@loop
def next_packed(words: Array, at: int, end: int, swapped: int) -> int:
    """The first word from `at` on where a compressed record begins; else the word up to which records are whole."""
    while at + 2 <= end:
        kind = word(words, at, swapped)
        sized = word(words, at + 1, swapped)
        size = sized & 0xFFFF if swapped else sized >> 16
        if kind == COMPRESSED_RECORD or kind == COMPRESSED2_RECORD or size < 8 or size % 4 or at + size // 4 > end:
            break
        stop = at + size // 4
        if kind == AUXTRACE and size >= 16:
            more = word64(words, at + 2, swapped)
            if not 0 <= more <= 4 * (end - stop):
                break
            stop += (more + 7) // 8 * 2
            if stop > end:
                break
        at = stop
    return at


@loop
def next_whole(words: Array, at: int, end: int, swapped: int) -> int:
    """The first word from `at` on where a row of records begins, -1 where none does; records lie at double words."""
    while at + 2 <= end:
        next_at = at
        for _ in range(_CHAIN):
            if next_at + 2 > end:
                break
            kind = word(words, next_at, swapped)
            sized = word(words, next_at + 1, swapped)
            size = sized & 0xFFFF if swapped else sized >> 16
            # Types that perf has, with room for some more; only those below 64 are the kernel's.
            possible = (0 < kind < 32 or RECORD_TYPES <= kind < 96) and size >= 8 and size % 8 == 0 and next_at + size // 4 <= end
            if not possible:
                next_at = -1
                break
            next_at += size // 4
        if next_at >= 0 and (next_at > at):
            return at
        at += 2
    return -1
