"""What kubernetes-validate does not see: custom kinds, and what holds between objects.

usage: check.py RENDERED.yaml README.md
"""

import re
import sys

import jsonschema
import yaml
from kinds import SCHEMAS

rendered, readme = sys.argv[1:]
objects = [document for document in yaml.safe_load_all(open(rendered)) if document]
settings = set(re.findall(r"`(LORAD_[A-Z_]+)`", open(readme).read()))
OWN_GROUPS = ("v1", "apps/v1", "policy/v1", "rbac.authorization.k8s.io/v1")


def named(kind, name):
    found = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def custom_kinds():
    for document in objects:
        if document["apiVersion"] not in OWN_GROUPS:
            jsonschema.validate(document, SCHEMAS[document["apiVersion"], document["kind"]])
        if document["kind"] == "ConfigMap":
            for text in document["data"].values():
                configuration = yaml.safe_load(text)
                if isinstance(configuration, dict) and configuration.get("kind") == "EndpointPickerConfig":
                    picker_configuration(configuration)


def picker_configuration(configuration):
    jsonschema.validate(configuration, SCHEMAS[configuration["apiVersion"], "EndpointPickerConfig"])
    plugins = {plugin.get("name", plugin["type"]) for plugin in configuration["plugins"]}
    for profile in configuration["schedulingProfiles"]:
        assert {plugin["pluginRef"] for plugin in profile["plugins"]} <= plugins


def selectors_select():
    """Whatever selects pods selects some, and what leads to a service or a claim leads to one that is there."""
    pods = [o["spec"]["template"]["metadata"]["labels"] for o in objects if o["kind"] == "Deployment"]
    for document in objects:
        selector = document.get("spec", {}).get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector).items()
            assert any(wanted <= labels.items() for labels in pods), f"{document['kind']} selects nothing: {selector}"
        if document["kind"] == "InferencePool":
            named("Service", document["spec"]["endpointPickerRef"]["name"])
        if document["kind"] == "HTTPRoute":
            for rule in document["spec"]["rules"]:
                for backend in rule["backendRefs"]:
                    named(backend["kind"], backend["name"])


def volumes(pod):
    """Every mount has its volume, every volume is mounted, and what it is made from is among the objects."""
    mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in pod.get("volumes", [])}
    for volume in pod.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            named("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
        if "configMap" in volume:
            named("ConfigMap", volume["configMap"]["name"])


def locked_down(pod):
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def server():
    """The pod's contract: the right probes, settings that exist, and time enough to drain."""
    pod = named("Deployment", "lorad")["spec"]["template"]["spec"]
    # A service of this name would set LORAD_PORT to an address.
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    [container] = pod["containers"]
    asked = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}
    assert asked == {"startup": "/health", "readiness": "/health", "liveness": "/livez"}
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    sources = [source["configMapRef"]["name"] for source in container.get("envFrom", []) if "configMapRef" in source]
    generated = {key for source in sources for key in named("ConfigMap", source)["data"]}
    unknown = {name for name in values.keys() | generated if name.startswith("LORAD_")} - settings
    assert not unknown, f"no settings of lorad serve: {unknown}"
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(values["LORAD_DRAIN_TIMEOUT"])
    assert pod["terminationGracePeriodSeconds"] == before + drain + 10


custom_kinds()
selectors_select()
for document in objects:
    if document["kind"] == "Deployment":
        volumes(document["spec"]["template"]["spec"])
        locked_down(document["spec"]["template"]["spec"])
server()
