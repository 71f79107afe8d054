"""Go templates as scripts write them."""

from __future__ import annotations

from typing import Any

import pytest

from kapelle.errors import UsageError
from kapelle.render.gotemplate import Struct, execute, listing, parse

CONTAINER: dict[str, Any] = Struct(
    Name="/demo-web-1",
    State=Struct(Status="running", Running=True, ExitCode=0, Health=None),
    Config=Struct(Labels={"com.docker.compose.project": "demo"}, Env=["A=1", "B=2"]),
    NetworkSettings=Struct(
        Networks={"demo_default": Struct(IPAddress="172.18.0.2"), "front": Struct(IPAddress="172.19.0.2")},
        Ports={"80/tcp": [Struct(HostIp="0.0.0.0", HostPort="8080")]},
    ),
    Mounts=[
        Struct(Type="volume", Name="data", Source="/var/x", Destination="/data"),
        Struct(Type="bind", Name="", Source="/src", Destination="/x"),
    ],
    Layers=[],
)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}", "running true 0"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{json .State.Health}}", "null"),
        ("{{json .Config.Labels}}", '{"com.docker.compose.project":"demo"}'),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", "172.18.0.2 172.19.0.2 "),
        ('{{(index .NetworkSettings.Networks "front").IPAddress}}', "172.19.0.2"),
        ('{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}', "8080"),
        (
            "{{range $k,$v := .NetworkSettings.Networks}}{{$k}}={{$v.IPAddress}};{{end}}",
            "demo_default=172.18.0.2;front=172.19.0.2;",
        ),
        ('{{index .Config.Labels "com.docker.compose.project"}}', "demo"),
        ('{{index .Config.Labels "nosuch"}}', ""),
        ("{{.Config.Labels.nosuch}}", "<no value>"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        ('{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}}{{"\\n"}}{{end}}{{end}}', "data\n"),
        ('{{range .Mounts}}{{if eq .Destination "/x"}}{{.Source}}{{end}}{{end}}', "/src"),
        ("{{range .Layers}}x{{else}}empty{{end}}", "empty"),
        ("{{with .State}}{{.Status}}{{end}}", "running"),
        ("{{with .State.Health}}{{.Status}}{{else}}no{{end}}", "no"),
        ('{{len .Mounts}} {{.Name | upper | printf "%s!"}}', "2 /DEMO-WEB-1!"),
        ('{{join .Config.Env ","}}', "A=1,B=2"),
        ('{{range split "a b" " "}}<{{.}}>{{end}}', "<a><b>"),
        ("{{if and .State.Running (not .State.Health)}}up{{end}}", "up"),
        ("{{if or .State.Health .State.Running}}up{{end}}", "up"),
        ("{{if ne .State.ExitCode 0}}bad{{else if gt 2 1}}good{{end}}", "good"),
        ("a {{- .State.Status -}} b", "arunningb"),
        ("{{/* a remark */}}x", "x"),
        ("{{$x := .State.Status}}{{$x}}", "running"),
        ('{{printf "%-8s|%5d|%q" .State.Status .State.ExitCode `a`}}', 'running |    0|"a"'),
        ("{{$.Name}}", "/demo-web-1"),
        ("{{range .Mounts}}{{$.State.Status}} {{end}}", "running running "),
        ('{{title "ab cd"}} {{lower "X"}} {{truncate "abcdef" 3}} {{pad "a" 1 2}}|', "Ab Cd x abc  a  |"),
        ("{{.Config.Env}}", "[A=1 B=2]"),
        ("{{print 1 2}}{{true}}", "12true"),
    ],
)
def test_a_template_prints_what_docker_prints(template: str, expected: str) -> None:
    assert execute(parse(template), CONTAINER) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.nosuch}}", 'executing "" at <.nosuch>: map has no entry for key "nosuch"'),
        ("{{.State.Health.Status}}", "nil pointer"),
        ("{{.Name.x}}", "can't evaluate field x"),
        ("{{.Name", "unclosed action"),
        ("{{if .Name}}x", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{nosuch .}}", 'function "nosuch" not defined'),
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{index .Mounts 9}}", "error calling index"),
        ("{{.Name 1}}", "can't give argument to non-function"),
    ],
)
def test_a_mistake_in_a_template_is_told_in_dockers_words(template: str, message: str) -> None:
    with pytest.raises(UsageError) as e:
        execute(parse(template), CONTAINER)
    assert message in e.value.what
    assert e.value.what.startswith("template parsing error: ")


def test_a_list_is_one_line_per_object_and_a_table_has_headings() -> None:
    objects = [{"Name": "a", "ID": "1"}, {"Name": "longer-name", "ID": "2"}]
    labels = [{"k": "v"}, {}]
    assert listing('{{.Name}}:{{.Label "k"}}', objects, labels=labels) == "a:v\nlonger-name:\n"
    assert listing("table {{.Name}}\\t{{.ID}}", objects, headers={"ID": "CONTAINER ID"}) == (
        "NAME          CONTAINER ID\na             1\nlonger-name   2\n"
    )
    assert listing("{{json .}}", objects[:1]) == '{"Name":"a","ID":"1"}\n'
    assert listing("table {{.Name}}", []) == "NAME\n"
