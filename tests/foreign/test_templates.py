"""A chat template that does not end, or makes endless texts, is refused in one line."""

import pytest

from w2s_ray.errors import InputError
from w2s_ray.foreign import templates
from w2s_ray.foreign.templates import check_template

CHAT = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]
GOOD = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}"
    "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}{{ strftime_now('%d') }}"
)


def test_an_ordinary_template_passes() -> None:
    check_template(GOOD, {"bos_token": "<s>"}, CHAT * 1_000, "t")


@pytest.mark.parametrize("template", ["{% if %}", "{{ raise_exception('no') }}", "{{ x.y.z }}"])
def test_what_a_template_refuses_is_said_by_its_rendering(template: str) -> None:
    check_template(template, {}, CHAT, "t")


@pytest.mark.parametrize(
    ("template", "fragment"),
    [
        ("{% for a in range(99999) %}" * 2 + "{% endfor %}" * 2, "limit template.seconds"),
        ("{{ 9 ** (9 ** 9) }}", "limit template.seconds"),
        ("{% for a in range(99999) %}" * 2 + "x" + "{% endfor %}" * 2, "limit text.characters"),
        ("{{ 'x' * 5000000 }}", "conversation 1: given more than 4,000,000 characters"),
        ("{{ 'x' * 10 ** 11 }}", "limit template."),
        ("{{ ('x' * 99999) | replace('x', 'y' * 99999) }}", "limit template."),
        ("{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}"
         "{% endfor %}", "limit template."),
        ("x" * 1_048_577, "limit template.characters"),
        ("{% if messages[0].content == 'b' %}{{ 'x' * 10 ** 11 }}{% endif %}", "conversation 2"),
    ],
)  # fmt: skip
def test_a_bomb_is_refused_in_one_line(
    template: str, fragment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = templates.limit
    if fragment != "limit text.characters":  # that one must be reached first, on a slow host too
        monkeypatch.setattr(
            templates, "limit", lambda name: 2 if name == "template.seconds" else limit(name)
        )
    with pytest.raises(InputError) as caught:
        check_template(template, {}, [*CHAT, [{"role": "user", "content": "b"}]], "template t")
    assert str(caught.value).startswith("template t: ") and fragment in str(caught.value)
