"""What the reports share: the network, the samples and the machine that were asked for, and the file that is made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accelsim.cli.inputs import (
    DEFAULT_MACHINE,
    CalibrationChoice,
    describe_machine,
    load_machine,
    load_samples,
    open_network,
    quantize_network,
)
from accelsim.cli.options import Layout, quantization
from accelsim.cli.programs import open_model, quantized_or_program
from accelsim.cli.terminal import Progress, echo

if TYPE_CHECKING:
    from accelsim.graph.graph import Graph
    from accelsim.graph.quantized import QuantizedGraph
    from accelsim.machine import Machine
    from accelsim.program.program import IntegerProgram
    from accelsim.report.html import HtmlReport

Output = Annotated[Path, typer.Option(metavar="REPORT.html", help="The file to make; replaced if it exists.")]
Title = Annotated[str | None, typer.Option(metavar="TEXT", help="The page's heading; network and grid if left out.")]


@dataclass(frozen=True)
class Choice:
    """Files, machine and quantization as they were typed."""

    model: Path
    images: str
    labels: str | None
    limit: int | None
    layout: Layout
    machine_name: str | None
    settings: list[str] | None
    calibration: str | None
    calibration_limit: int | None
    weight_bits: int | None
    activation_bits: int | None
    per_channel: bool | None
    ptq: Path | None

    @property
    def calibrated_on(self) -> CalibrationChoice:
        """Where the images come from that a float model is calibrated on."""
        return CalibrationChoice(self.calibration, self.calibration_limit, self.layout)

    def quantization(self) -> dict[str, Any]:
        """Return the quantization options that were given."""
        return quantization(
            self.weight_bits, self.activation_bits, self.per_channel, None, None, False, None, None, self.ptq
        )

    def machine(self, own: Machine | None = None) -> Machine:
        """Return the machine; where none is named the model's own, if it has one."""
        return load_machine(self.machine_name, self.settings or [], own)

    def network(self) -> Graph | QuantizedGraph:
        """Read the network, quantized or still to be quantized."""
        return open_network(self.model, self.calibrated_on, self.quantization())

    def model_and_samples(self) -> tuple[Graph | QuantizedGraph | IntegerProgram, Any, Any]:
        """Read any model, its images, and labels or None."""
        return open_model(
            self.model, self.calibrated_on, self.quantization(), self.images, self.labels, self.limit
        )  # fmt: skip

    def integers(
        self, network: Graph | QuantizedGraph | IntegerProgram, progress: Progress | None
    ) -> QuantizedGraph | IntegerProgram:
        """Return the network quantized, or the program that it is."""
        return quantized_or_program(network, self.calibrated_on, self.quantization(), progress)

    def quantized(self, network: Graph | QuantizedGraph, progress: Progress | None) -> QuantizedGraph:
        """Return the network quantized."""
        return quantize_network(network, self.calibrated_on, self.quantization(), progress)

    def samples(self, network: Graph | QuantizedGraph) -> tuple[Any, Any]:
        """Read images, and labels or None."""
        return load_samples(network, self.images, self.labels, self.limit, self.layout)

    def facts(self, machine: Machine) -> list[tuple[str, str]]:
        """Return what was given, with the hashes of the files; folders are not told."""
        from accelsim.arrays import array_file
        from accelsim.report.html.provenance import file_facts

        found = file_facts("model", self.model)
        for what, name in (("images", self.images), ("labels", self.labels), ("calibration", self.calibration)):
            if name is not None:
                file = array_file(name)
                found += file_facts(what, file, file.name + name[len(str(file)) :])
        for what, count in (("first images", self.limit), ("first calibration images", self.calibration_limit)):
            found += [] if count is None else [(what, f"{count:,}")]
        found += [(name, str(value)) for name, value in self.quantization().items()]
        named = Path(self.machine_name or DEFAULT_MACHINE).name
        return [*found, ("machine", describe_machine(named, self.settings or [], machine))]


def save(page: HtmlReport, output: Path, as_json: bool, found: dict[str, Any]) -> None:
    """Write the page and say so, with what a program may want to know of it."""
    page.save(output)
    size = output.stat().st_size
    if as_json:
        sections = [section.key for section in page.sections]
        echo(json.dumps({"output": str(output), "bytes": size, "sections": sections, **found}, indent=2))
    else:
        echo(f"wrote {output} ({size:,} bytes): {', '.join(section.title.lower() for section in page.sections)}")
