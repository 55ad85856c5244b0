"""Settings as an operator meets them: files, variables, and one list of everything that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from voiceforge.errors import ConfigurationError
from voiceforge.main.settings import Settings, env_name, setting_fields
from voiceforge.main.settings_loading import load_settings, load_with_origins
from voiceforge.main.settings_recognition import DEEPGRAM_MODEL_IDS, OPENAI_MODEL_IDS
from voiceforge.main.settings_text import MASK, describe, example_toml, markdown_tables


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "voiceforge.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(
    environ: dict[str, str] | None = None,
    overrides: dict[str, object] | None = None,
    config: Path | None = None,
) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(config, overrides, environ or {})
    return caught.value.problems


def value_at(settings: Settings, path: tuple[str, ...]) -> object:
    value: object = settings
    for name in path:
        value = getattr(value, name)
    return value


# -- layers -------------------------------------------------------------------------------------------


def test_nothing_given_is_a_working_configuration() -> None:
    settings = load_settings(environ={"HOME": "/home/ada"})
    assert settings.server.host == "127.0.0.1"
    assert settings.model == "moonshine-tiny-en"
    assert settings.data_dir == Path("/home/ada/.local/share/voiceforge")


def test_xdg_data_home_decides_the_data_dir_unless_it_is_relative() -> None:
    assert load_settings(environ={"XDG_DATA_HOME": "/srv/data"}).data_dir == Path("/srv/data/voiceforge")
    relative = load_settings(environ={"XDG_DATA_HOME": "data", "HOME": "/home/ada"})
    assert relative.data_dir == Path("/home/ada/.local/share/voiceforge")


def test_command_line_beats_environment_beats_file_beats_profile() -> None:
    write('profile = "production"\napi_key = "k"\n[server]\nport = 1\n[log]\nlevel = "debug"\n')
    assert load_settings(environ={}).log.format == "json"
    assert load_settings(environ={}).server.port == 1
    environ = {"VOICEFORGE_SERVER__PORT": "2", "VOICEFORGE_LOG__FORMAT": "pretty"}
    assert load_settings(environ=environ).server.port == 2
    assert load_settings(environ=environ).log.format == "pretty"
    assert load_settings(environ=environ).log.level == "debug"
    assert load_settings(environ=environ, overrides={"server.port": 3}).server.port == 3


def test_an_override_of_none_was_not_given() -> None:
    assert load_settings(environ={"VOICEFORGE_MODEL": "m"}, overrides={"model": None}).model == "m"


def test_the_config_argument_beats_the_variable_beats_the_folder() -> None:
    write("model = 'here'\n")
    named = write("model = 'named'\n", "named.toml")
    given = write("model = 'given'\n", "given.toml")
    assert load_settings(environ={}).model == "here"
    assert load_settings(environ={"VOICEFORGE_CONFIG": str(named)}).model == "named"
    assert load_settings(given, environ={"VOICEFORGE_CONFIG": str(named)}).model == "given"


def test_a_named_file_must_be_there() -> None:
    assert problems_of(config=Path("gone.toml")) == ("gone.toml: cannot be read: No such file or directory",)


def test_text_from_the_environment_becomes_lists_tables_sizes_and_nothing() -> None:
    write("[engine]\nthreads = 4\n")
    settings = load_settings(
        environ={
            "VOICEFORGE_MODELS__PRELOAD": "a, b",
            "VOICEFORGE_FETCH__ALLOW_HOSTS": '["media.lan", "10.0.0.9"]',
            "VOICEFORGE_MODELS__ALIASES": "fast=moonshine-tiny-en",
            "VOICEFORGE_SERVER__MAX_UPLOAD_BYTES": "5MiB",
            "VOICEFORGE_ENGINE__THREADS": "none",
        }
    )
    assert settings.models.preload == ("a", "b")
    assert settings.fetch.allow_hosts == ("media.lan", "10.0.0.9")
    assert settings.models.aliases["fast"] == "moonshine-tiny-en"
    assert settings.server.max_upload_bytes == 5 * 1024 * 1024
    assert settings.engine.threads is None


def test_ids_of_other_services_are_aliases_that_can_be_moved_and_removed() -> None:
    assert set(load_settings(environ={}).models.aliases) == {*OPENAI_MODEL_IDS, *DEEPGRAM_MODEL_IDS}
    write('[models.aliases]\n"whisper-1" = "whisper-small"\n"gpt-transcribe" = ""\n')
    aliases = load_settings(environ={}).models.aliases
    assert aliases["whisper-1"] == "whisper-small"
    assert aliases["gpt-4o-transcribe"] == "default"
    assert "gpt-transcribe" not in aliases


def test_loaded_settings_cannot_be_changed() -> None:
    settings = load_settings(environ={})
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1


# -- problems -----------------------------------------------------------------------------------------


def test_every_problem_of_every_layer_is_listed_at_once() -> None:
    write('modle = "x"\n[server]\nport = 70000\n[log]\nlevel = "loud"\n')
    problems = problems_of(
        {
            "VOICEFORGE_VAD__THRESHOLD": "high",
            "VOICEFORGE_MODELS__ALIASES": "{",
            "VOICEFORGE_AUDIO__MIN_DURATION_S": "90000",
            "VOICEFORGE_SERVER__HOST": "0.0.0.0",
        },
        {"queue.max_queued_s": -1},
    )
    starts = (
        "voiceforge.toml: modle: unknown setting; did you mean model?",
        "voiceforge.toml: server.port: ",
        "voiceforge.toml: log.level: should be 'debug', 'info', 'warning' or 'error' (got 'loud')",
        "VOICEFORGE_VAD__THRESHOLD: ",
        "VOICEFORGE_MODELS__ALIASES: not valid JSON",
        "command line: queue.max_queued_s: ",
        "audio.min_duration_s (90000.0) should be below audio.max_duration_s (43200.0)",
        "listening on 0.0.0.0 lets others in",
    )
    for start in starts:
        assert any(problem.startswith(start) for problem in problems), (start, problems)
    assert len(problems) == len(starts)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("VOICEFORGE_MODLE", "VOICEFORGE_MODEL"),
        ("VOICEFORGE_SERVER_PORT", "VOICEFORGE_SERVER__PORT"),
        ("VOICEFORGE_SERVER__PROT", "VOICEFORGE_SERVER__PORT"),
        ("VOICEFORGE_PORT", "VOICEFORGE_SERVER__PORT"),
        ("VOICEFORGE_CONFIGG", "VOICEFORGE_CONFIG"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant(misspelt: str, meant: str) -> None:
    assert problems_of({misspelt: "1"}) == (f"{misspelt}: unknown setting; did you mean {meant}?",)


def test_a_name_like_nothing_gets_no_suggestion() -> None:
    assert problems_of({"VOICEFORGE_XYZZY_PLUGH": "1"}) == ("VOICEFORGE_XYZZY_PLUGH: unknown setting",)


def test_variables_that_kubernetes_adds_for_a_service_of_our_name_are_no_settings() -> None:
    load_settings(
        environ={
            "VOICEFORGE_SERVICE_HOST": "10.0.0.1",
            "VOICEFORGE_SERVICE_PORT_HTTP": "80",
            "VOICEFORGE_PORT": "tcp://10.0.0.1:80",
            "VOICEFORGE_PORT_80_TCP_ADDR": "10.0.0.1",
        }
    )


def test_broken_toml_is_one_problem_among_others() -> None:
    write("[server\n")
    first, second = problems_of({"VOICEFORGE_SERVER__PORT": "x"})
    assert first.startswith("voiceforge.toml: not valid TOML")
    assert second.startswith("VOICEFORGE_SERVER__PORT: ")


def test_a_section_that_is_no_table_is_named() -> None:
    write("server = 8000\n")
    assert problems_of() == ("voiceforge.toml: server: should be a table (got 8000)",)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "asr.example"])
def test_listening_beyond_this_machine_needs_a_key_or_an_explicit_word(host: str) -> None:
    environ = {"VOICEFORGE_SERVER__HOST": host}
    assert "set api_key or auth.required = true, or" in problems_of(environ)[0]
    assert load_settings(environ=environ | {"VOICEFORGE_API_KEY": "k"}).server.host == host
    assert load_settings(environ=environ, overrides={"server.insecure": True}).server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert load_settings(environ={"VOICEFORGE_SERVER__HOST": host}).server.host == host


def test_production_needs_a_key_or_an_explicit_word() -> None:
    environ = {"VOICEFORGE_PROFILE": "production"}
    assert problems_of(environ) == (
        "the production profile needs api_key or auth.required = true, or server.insecure = true",
    )
    assert load_settings(environ=environ | {"VOICEFORGE_SERVER__INSECURE": "true"}).profile == "production"


def test_a_setting_that_is_already_wrong_raises_no_second_complaint() -> None:
    problems = problems_of({"VOICEFORGE_SERVER__HOST": "0.0.0.0", "VOICEFORGE_API_KEY": "with space"})
    assert len(problems) == 1
    assert problems[0].startswith("VOICEFORGE_API_KEY: ")


def test_an_alias_of_an_alias_is_refused() -> None:
    write('[models.aliases]\na = "b"\nb = "moonshine-tiny-en"\n')
    assert problems_of() == ("alias 'a' points to 'b', which is itself an alias",)


# -- secrets ------------------------------------------------------------------------------------------


def test_no_problem_repeats_a_secret() -> None:
    for environ in ({"VOICEFORGE_API_KEY": "hush hush"}, {"VOICEFORGE_API_KYE": "hush hush"}):
        assert "hush" not in " ".join(problems_of(environ))


def test_the_key_is_masked_wherever_settings_are_shown() -> None:
    loaded = load_with_origins(environ={"VOICEFORGE_API_KEY": "hush"})
    assert loaded.settings.api_key is not None
    assert loaded.settings.api_key.get_secret_value() == "hush"
    rows = {row.name: row for row in describe(loaded)}
    assert rows["api_key"].value == MASK
    assert "hush" not in repr(loaded) + repr(rows)


# -- text ---------------------------------------------------------------------------------------------


def test_describe_says_where_each_value_comes_from() -> None:
    write("[server]\ngrace_s = 5\nport = 5\n")
    loaded = load_with_origins(
        environ={"VOICEFORGE_PROFILE": "staging", "VOICEFORGE_SERVER__PORT": "9"}, overrides={"model": "m"}
    )
    rows = {row.name: (row.value, row.source) for row in describe(loaded)}
    assert rows["server.grace_s"] == ("5.0", "file voiceforge.toml")
    assert rows["server.port"] == ("9", "env VOICEFORGE_SERVER__PORT")
    assert rows["log.format"] == ('"json"', "profile staging")
    assert rows["model"] == ('"m"', "command line")
    assert rows["server.host"] == ('"127.0.0.1"', "default")
    assert rows["api_key"] == ("unset", "default")
    assert len(rows) == len(list(setting_fields()))


def test_the_example_changes_nothing_as_it_stands() -> None:
    write(example_toml())
    empty = load_settings(write("", "empty.toml"), environ={})
    assert load_settings(environ={}).model_dump() == empty.model_dump()


def test_the_example_names_every_setting_with_a_value_that_is_accepted() -> None:
    given = [
        re.sub(r"^# (\w+ = )", r"\1", line)
        for line in example_toml().splitlines()
        if not line.startswith("# [")
    ]
    environ = {"HOME": str(Path.home())}
    loaded = load_with_origins(write("\n".join(given)), environ=environ)
    assert set(loaded.origins) == {path for path, _ in setting_fields()}
    defaults = load_settings(write("", "empty.toml"), environ=environ)
    for path, field in setting_fields():
        if field.default is not None:
            assert value_at(loaded.settings, path) == value_at(defaults, path)


def test_every_setting_says_what_it_is_for_and_has_a_row() -> None:
    tables = markdown_tables()
    for path, field in setting_fields():
        assert field.description
        assert f"| `{'.'.join(path)}` | `{env_name(path)}` |" in tables


def test_several_workers_do_not_each_load_the_models() -> None:
    wish = {"VOICEFORGE_SERVER__WORKERS": "2", "VOICEFORGE_ENGINE__ISOLATION": "thread"}
    (problem,) = problems_of(wish)
    assert 'set engine.isolation = "process"' in problem
    assert load_settings(environ={"VOICEFORGE_SERVER__WORKERS": "2"}).server.workers == 2


@pytest.mark.parametrize("safe", [{"wyoming.allow": ("10.0.0.0/8",)}, {"wyoming.insecure": True}])
def test_wyoming_beyond_this_machine_needs_a_word(safe):
    environ = {"VOICEFORGE_WYOMING__ENABLED": "true", "VOICEFORGE_WYOMING__HOST": "0.0.0.0"}
    (problem,) = problems_of(environ)
    assert "set wyoming.allow, or wyoming.insecure = true" in problem
    assert load_settings(environ=environ, overrides=safe).wyoming.host == "0.0.0.0"
    off = {"VOICEFORGE_WYOMING__HOST": "0.0.0.0"}
    assert not load_settings(environ=off).wyoming.enabled


def test_the_networks_of_wyoming():
    environ = {"VOICEFORGE_WYOMING__ALLOW": "192.168.1.7, fd00::/8, 10.0.0.1/8"}
    assert [str(one) for one in load_settings(environ=environ).wyoming.networks] == [
        "192.168.1.7/32",
        "fd00::/8",
        "10.0.0.0/8",
    ]
    (problem,) = problems_of({"VOICEFORGE_WYOMING__ALLOW": "everyone"})
    assert "everyone" in problem


def test_wyoming_is_live_streams():
    environ = {"VOICEFORGE_WYOMING__ENABLED": "true", "VOICEFORGE_FEATURES__STREAMS": "false"}
    (problem,) = problems_of(environ)
    assert "features.streams" in problem


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"AUTH__LETTER_URL": "https://x.example/", "AUTH__LETTER_COMMAND": "send"}, "set one of them"),
        (
            {"AUTH__LETTER_SECRET": "whsec_bm90LWEtc2VjcmV0LWJ1dC1hbi1leGFtcGxlLW9mLW9uZQ=="},
            "set auth.letter_url",
        ),
        ({"OIDC__ISSUER": "https://x.example"}, "needs oidc.client_id and oidc.redirect_url too"),
        ({"OIDC__ROLES": "staff=member"}, "set oidc.role_claim too"),
        ({"OIDC__TENANTS": "a=b"}, "set oidc.tenant_claim too"),
        ({"OIDC__ROLES": "staff=owner"}, "no role that a provider can give"),
        ({"AUTH__LETTER_URL": "mailto:x@example.org"}, "http or https"),
    ],
)
def test_settings_of_people_that_cannot_work_are_told(given: dict[str, str], told: str) -> None:
    problems = problems_of({f"VOICEFORGE_{name}": value for name, value in given.items()})
    assert [problem for problem in problems if told in problem]
