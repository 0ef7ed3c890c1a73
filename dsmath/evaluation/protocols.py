"""Protocols of evaluation, frozen by name: what must be the same before two scores are compared.

A protocol never changes; what is done otherwise gets another name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dsmath.data.solutions import chat_prompt
from dsmath.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How generations are made and graded.

    Attributes:
      name: of the protocol.
      max_new_tokens: of a completion, a tool's output included.
      greedy_temperature: of the pass that accuracy is told of; 0 takes the likeliest token.
      temperature: of the samples of pass@k and maj@k.
      top_p: of the samples.
      tool_rounds: stretches that a model writes in a tool-integrated solution; a program may run at the end of each.
      tool_output_ends: characters kept of the beginning and of the end of a longer output.
      program_seconds: of a program of the model.
      test_seconds: of a program with all its tests.
      memory: bytes of a program.
      frames: what is put around a question in the chat, by mode and language.
    """

    name: str
    max_new_tokens: int
    greedy_temperature: float = 0.0
    temperature: float = 0.7
    top_p: float = 1.0
    tool_rounds: int = 2
    tool_output_ends: int = 50
    program_seconds: float = 10.0
    test_seconds: float = 30.0
    memory: int = 1 << 30
    frames: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {
            f"{mode}_{language}": chat_prompt("{question}", language, kind)
            for mode, kind in (("chat", "cot"), ("chat_tool", "tir"))
            for language in ("en", "zh")
        }
    )

    def record(self) -> dict[str, Any]:
        """The protocol as it is kept beside generations."""
        return dataclasses.asdict(self)


PROTOCOL = "protocol.json"  # the record, in an evaluation's workdir

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # Source: DeepSeekMath's released evaluation; the temperature is §5.2.2's. Seconds of tests and memory are ours.
        Protocol("paper", max_new_tokens=1024),
        Protocol("nano", max_new_tokens=160),  # ours: what a laptop's model can write
    )
}


def find_protocol(name: str, field: str) -> Protocol:
    """The protocol of this name.

    Args:
      name: of it.
      field: where it was given, for the message.
    Raises:
      InputError: there is none.
    """
    if name not in PROTOCOLS:
        raise InputError(f"{field}: {name!r} is none of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def read_protocol(config: Any) -> Protocol:
    """What a config of an evaluation does; its name is empty where the config names no protocol.

    Args:
      config: protocol, max_new_tokens, temperature, top_p and tool.
    Raises:
      InputError: it names a protocol and does something else; the message names the first field that differs.
    """
    found = Protocol(
        name=config.protocol,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        tool_rounds=config.tool.max_calls,
        tool_output_ends=config.tool.ends,
        program_seconds=config.tool.seconds,
        test_seconds=config.tool.test_seconds,
        memory=int(config.tool.memory_gib * 2**30),
    )
    if config.protocol:
        fields, here = find_protocol(config.protocol, "config.protocol").record(), found.record()
        for field, value in fields.items():
            if here[field] != value:
                raise InputError(
                    f"config.protocol: {config.protocol!r} has {field} {value!r}, and this config {here[field]!r}; "
                    "change it, or set config.protocol to ''"
                )
    return found


def check(protocol: Protocol, recorded: Mapping[str, Any], place: str) -> None:
    """Refuses generations that were made under another protocol.

    Args:
      protocol: under which they are to be scored or compared.
      recorded: what `Protocol.record` was when they were made.
      place: where they lie, for the message.
    Raises:
      InputError: names the first field that differs.
    """
    fields = protocol.record()
    for field in [*(field for field in fields if field != "name"), "name"]:  # the name says least
        value = fields[field]
        if recorded.get(field) != value:
            raise InputError(
                f"{place}: made under protocol {recorded.get('name')!r}, whose {field} is {recorded.get(field)!r}; "
                f"that of {protocol.name!r} is {value!r}; score it under its own, or generate again"
            )
