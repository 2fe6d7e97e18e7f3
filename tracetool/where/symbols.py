"""Names of instructions: the functions of program files, by where the trace says that each was loaded."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from tracetool import schema
from tracetool.errors import Unusable
from tracetool.trace import Trace
from tracetool.where.maps import ancestors, maps

#: Where Linux loads a position-independent program on x86-64 where addresses are not randomised: two thirds of user memory, and a page
#: (arch/x86/include/asm/elf.h, `ELF_ET_DYN_BASE`).
NOT_RANDOMISED: Final = 0x5555_5555_4000


@dataclass(frozen=True)
class Symbols:
    """Functions of an ELF file, sorted: first address (as linked), length in bytes (0: up to the next), name. `base` is what is added to
    them where it was loaded (0: not movable; None: not said), `segments` what of the file is loaded (offset, linked address, bytes), `code`
    those of instructions, and `runs` whether it is a program, not a library; `said`: the user gave the base, which then holds whatever the
    trace says.
    """

    path: str
    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    names: tuple[str, ...]
    base: int | None
    segments: tuple[tuple[int, int, int], ...]
    runs: bool
    said: bool
    code: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(cls, text: str) -> Symbols:
        """Read FILE, or FILE@BASE of a position-independent program that was loaded at address BASE.

        Raises:
            Unusable: the file is missing, no ELF file, or has no symbols; BASE is no number.
        """
        from elftools.common.exceptions import ELFError
        from elftools.elf.constants import P_FLAGS
        from elftools.elf.elffile import ELFFile

        path, _, base = text.partition("@")
        if not Path(path).is_file():
            raise Unusable(f"no file {path!r}", hint="--symbols FILE names a program with symbols, FILE@BASE where it was loaded")
        try:
            with Path(path).open("rb") as file:
                elf = ELFFile(file)
                movable = elf["e_type"] == "ET_DYN"
                found = _functions(elf)
                parts = [(each["p_type"], each["p_offset"], each["p_vaddr"], each["p_filesz"]) for each in elf.iter_segments()]
                code = [bool(each["p_flags"] & P_FLAGS.PF_X) for each in elf.iter_segments()]
        except (ELFError, UnicodeDecodeError, ValueError, KeyError, OSError) as error:
            raise Unusable(f"{path} is no ELF file that can be read: {error}") from error
        if not found:
            raise Unusable(f"{path} has no symbols of functions", hint="it may be stripped; name the unstripped program or its debug file")
        addresses = sorted(found)
        return cls(
            path,
            tuple(addresses),
            tuple(found[address][0] for address in addresses),
            tuple(found[address][1] for address in addresses),
            _number(base) if base else None if movable else 0,
            tuple((offset, address, size) for kind, offset, address, size in parts if kind == "PT_LOAD"),
            any(kind == "PT_INTERP" for kind, *_ in parts),
            bool(base),
            tuple(
                (offset, address, size)
                for (kind, offset, address, size), runs in zip(parts, code, strict=True)
                if kind == "PT_LOAD" and runs
            ),
        )

    @property
    def file(self) -> str:
        """The name of the file, without its folder."""
        return Path(self.path).name

    def name(self, ip: int, base: int | None = None) -> str | None:
        """The function of an instruction with the distance from its start, as `main+0x4f`; None: of none that is known.

        `base` is where the file was loaded, where nothing was said of that.
        """
        loaded = self.base if self.base is not None else base
        if loaded is None:
            return None
        at = bisect.bisect_right(self.starts, ip - loaded) - 1
        if at < 0:
            return None
        distance = ip - loaded - self.starts[at]
        if self.sizes[at] and distance >= self.sizes[at]:
            return None
        # A function without a length reaches to the next one, and no further than the code does.
        if self.code and not any(address <= ip - loaded < address + size for _, address, size in self.code):
            return None
        return f"{self.names[at]}+{distance:#x}"

    def loaded_at(self, start: int, offset: int) -> int | None:
        """What is added to its addresses where `offset` of the file (bytes) is mapped at `start`; None: nothing of it is loaded there."""
        # Mappings begin and end at whole pages, which code may share with what comes before it in the file.
        for begins, address, size in self.code or self.segments:
            if begins - begins % schema.PAGE_SIZE <= offset < begins + size:
                return start - (address + offset - begins)
        return None

    def loaded_from(self, lowest: int) -> int:
        """The same where the first of its mappings begins at `lowest`."""
        first = min((address for _, address, _ in self.segments), default=0)
        return lowest - (first - first % schema.PAGE_SIZE)


@dataclass(frozen=True)
class Programs:
    """Several files with symbols, and what of a trace they name: `names` (`ip` of an address space `mm`, `name`), and in sentences what had
    to be assumed.
    """

    files: tuple[Symbols, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Programs:
        """Read them as `Symbols.of` does. Raises Unusable."""
        return cls(tuple(Symbols.of(text) for text in texts))

    def names(self, places: pl.DataFrame, trace: Trace) -> pl.Series:
        """The name of each instruction (`mm`, `event`, `ip`; null: none), as a series `site` (String; null: none that is known).

        Where a file was loaded is, in this order: what the user said; for a file at a fixed address, that; what perf's records or
        trace-cmd's lists say of the process at that moment; for a program of which the trace has none of these, `NOT_RANDOMISED`.
        """
        asked = places.select("mm", "event", "ip").with_row_index("row").drop_nulls(["mm", "ip"])
        rows = asked.select("mm", "event", address="ip")
        mapped = maps(trace).over(rows, ancestors(rows["mm"].unique(), trace))
        known = self._known(trace)
        keyed = asked.select("row", "ip").with_columns(mapped[name] for name in ("file", "first", "offset", "base"))
        keys = ["ip", "file", "first", "offset", "base"]
        distinct = keyed.select(keys).unique(maintain_order=True)
        named = [self._name(row, known) for row in distinct.iter_rows(named=True)]
        found = keyed.join(distinct.with_columns(pl.Series("site", named, dtype=pl.String)), on=keys, how="left", nulls_equal=True)
        return places.with_row_index("row").select("row").join(found, on="row", how="left", maintain_order="left")["site"]

    def assumptions(self, trace: Trace) -> list[str]:
        """What had to be assumed of a trace, a sentence a file."""
        known = self._known(trace)
        told = []
        for each in self.files:
            if each.base is not None or each.file in known:
                continue
            said = f"where {each.file} was loaded is not in the trace (perf's records of maps, trace-cmd record --proc-map)"
            if each.runs:
                told.append(f"{said}: assumed {NOT_RANDOMISED:#x}, as without randomised addresses; else say --symbols {each.path}@BASE")
            else:
                told.append(f"{said}: it names nothing; say --symbols {each.path}@BASE")
        return told

    def _known(self, trace: Trace) -> set[str]:
        """Files that the trace says something of."""
        files = pl.concat([maps(trace).timed["file"], maps(trace).listed["file"]]).drop_nulls().unique()
        return {_bare(path) for path in files}

    def _name(self, row: dict[str, Any], known: set[str]) -> str | None:
        for each in self.files:
            loaded = self._loaded(each, row, known)
            if loaded is not None and (name := each.name(row["ip"], loaded)):
                return name
        return None

    def _loaded(self, each: Symbols, row: dict[str, Any], known: set[str]) -> int | None:
        """What is added to the addresses of a file for this instruction; None: it is of another file, or nobody knows."""
        if each.said:
            return each.base
        if row["file"] is None:
            return each.base if each.base is not None or not each.runs or each.file in known else NOT_RANDOMISED
        if _bare(row["file"]) != each.file:
            return None
        if each.base is not None:
            return each.base
        if row["offset"] is not None:
            return each.loaded_at(row["first"] * schema.PAGE_SIZE, row["offset"])
        return None if row["base"] is None else each.loaded_from(row["base"])


def _bare(path: str) -> str:
    """A file's name as maps have it, which say so of one that was deleted."""
    return Path(path.removesuffix(" (deleted)")).name


def _functions(elf: Any) -> dict[int, tuple[int, str]]:
    """Functions with an address of their own: linked address -> length, name."""
    from elftools.elf.sections import SymbolTableSection

    tables = [section for section in elf.iter_sections() if isinstance(section, SymbolTableSection)]
    return {
        symbol["st_value"]: (symbol["st_size"], symbol.name)
        for table in tables
        for symbol in table.iter_symbols()
        if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_value"]
    }


def _number(base: str) -> int:
    try:
        return int(base, 0)
    except ValueError as error:
        raise Unusable(f"{base!r} is no address", hint="FILE@BASE wants a number, such as 0x555555554000") from error
