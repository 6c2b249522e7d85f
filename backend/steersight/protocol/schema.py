"""JSON Schema of the wire contract: `python -m steersight.protocol.schema FILE` writes it.

The front end's TypeScript types are generated from that file, and `make check` fails when either drifts.
Field types are named after msgpack's; `data` of a rows frame is msgpack `bin`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from .close import REASONS, CloseCode
from .messages import PROTOCOL_VERSION, SUBPROTOCOL, ClientFrame, ServerFrame


class _Wire(BaseModel):
    """Everything that travels, as one schema."""

    model_config = ConfigDict(extra="forbid")
    client: ClientFrame
    server: ServerFrame


class _WireSchema(GenerateJsonSchema):
    def bytes_schema(self, schema: Any) -> JsonSchemaValue:
        """msgpack bin: the one type JSON has no word for. json-schema-to-typescript reads tsType."""
        return {"description": "msgpack bin", "tsType": "Uint8Array"}


def wire_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of both directions, with subprotocol and close codes alongside."""
    schema = _Wire.model_json_schema(mode="serialization", schema_generator=_WireSchema)
    schema["title"] = "Wire"
    schema["x-subprotocol"] = SUBPROTOCOL
    schema["x-protocol"] = PROTOCOL_VERSION
    schema["x-close-codes"] = {code.name: {"code": int(code), "reason": REASONS[code]} for code in CloseCode}
    return schema


def main() -> None:
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(wire_schema(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
