"""Names of instructions: the functions of a program file, by address."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path

from tracetool.errors import Unusable


@dataclass(frozen=True)
class Symbols:
    """Functions of an ELF file, sorted: first address, length in bytes (0: up to the next), name."""

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Symbols:
        """Read FILE, or FILE@BASE of a position-independent program that was loaded at address BASE.

        Raises:
            Unusable: the file is missing, no ELF file, has no symbols, or is position-independent and no base is given.
        """
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
        from elftools.elf.sections import SymbolTableSection

        path, _, base = text.partition("@")
        if not Path(path).is_file():
            raise Unusable(f"no file {path!r}", hint="--symbols FILE names a program with symbols, FILE@BASE where it was loaded")
        try:
            with Path(path).open("rb") as file:
                elf = ELFFile(file)
                movable = elf["e_type"] == "ET_DYN"
                tables = [section for section in elf.iter_sections() if isinstance(section, SymbolTableSection)]
                found = {
                    symbol["st_value"]: (symbol["st_size"], symbol.name)
                    for table in tables
                    for symbol in table.iter_symbols()
                    if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_value"]
                }
        except (ELFError, UnicodeDecodeError, ValueError, KeyError) as error:
            raise Unusable(f"{path} is no ELF file that can be read: {error}") from error
        if not found:
            raise Unusable(f"{path} has no symbols of functions", hint="it may be stripped; name the unstripped program or its debug file")
        if movable and not base:
            raise Unusable(f"{path} is position-independent", hint=f"say where it was loaded: --symbols {path}@0x555555554000")
        offset = _number(base) if base else 0
        addresses = sorted(found)
        return cls(
            tuple(address + offset for address in addresses),
            tuple(found[address][0] for address in addresses),
            tuple(found[address][1] for address in addresses),
        )

    def name(self, ip: int) -> str | None:
        """The function of an instruction with the distance from its start, as `main+0x4f`; None: of none that is known."""
        at = bisect.bisect_right(self.starts, ip) - 1
        if at < 0:
            return None
        distance = ip - self.starts[at]
        if self.sizes[at] and distance >= self.sizes[at]:
            return None
        return f"{self.names[at]}+{distance:#x}"


def _number(base: str) -> int:
    try:
        return int(base, 0)
    except ValueError as error:
        raise Unusable(f"{base!r} is no address", hint="FILE@BASE wants a number, such as 0x555555554000") from error
