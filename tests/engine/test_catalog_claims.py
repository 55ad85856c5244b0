"""What the catalog promises of the bundled model before it is loaded is what the engine then says."""

from __future__ import annotations

from dataclasses import replace

from voiceforge.infra.modelstore.wheel import find_in_wheel
from voiceforge.speech.engines.catalog import find_entry
from voiceforge.speech.engines.moonshine_ort import MODEL_FILES, MoonshineOrt
from voiceforge.speech.transcript.types import ModelRef


def test_the_bundled_model_can_do_what_the_catalog_says() -> None:
    entry = find_entry("moonshine-tiny-en")
    assert entry
    assert set(entry.required) == set(MODEL_FILES)
    found = find_in_wheel(entry)
    assert found
    engine = MoonshineOrt(found.files.path, ModelRef(entry.id, found.files.revision))
    try:
        claimed = entry.capabilities
        assert claimed
        assert replace(engine.capabilities, parallel_decodes=1) == claimed
    finally:
        engine.close()
