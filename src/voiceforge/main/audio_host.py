"""The process that forks those who read audio. Started by its keeper, never by hand."""

from __future__ import annotations

from voiceforge.infra.audiohost.align_craft import AlignCraft
from voiceforge.infra.audiohost.host import run_audio_host
from voiceforge.infra.audiohost.listen_craft import ListenCraft
from voiceforge.infra.audiohost.remote_aligner import ALIGN
from voiceforge.infra.audiohost.remote_decoder import STREAM
from voiceforge.infra.audiohost.remote_listener import LISTEN
from voiceforge.infra.audiohost.stream_craft import StreamCraft
from voiceforge.main.memory import return_large_blocks
from voiceforge.speech.alignment.aligner import Aligner


def main() -> None:
    return_large_blocks()
    run_audio_host({LISTEN: ListenCraft(), ALIGN: AlignCraft(_aligner), STREAM: StreamCraft()})


def _aligner() -> Aligner:
    from voiceforge.speech.alignment.english_pocketsphinx import PocketsphinxAligner

    aligner = PocketsphinxAligner(max_decoders=1)
    aligner.preload()
    return aligner


if __name__ == "__main__":
    main()
