"""Kubernetes manifests: valid by the schemas, and what refers to something finds it."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from deploy.config import Sources, load_config

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
BASE = K8S / "base"
KUSTOMIZATION = yaml.safe_load((BASE / "kustomization.yml").read_text())
OBJECTS = [
    manifest
    for name in KUSTOMIZATION["resources"]
    for manifest in yaml.safe_load_all((BASE / name).read_text())
    if manifest is not None
]
WORKLOADS = [manifest for manifest in OBJECTS if manifest["kind"] in ("Deployment", "StatefulSet")]
LITERALS = {
    generator["name"]: dict(literal.split("=", 1) for literal in generator["literals"])
    for generator in KUSTOMIZATION["configMapGenerator"]
}


def name_of(manifest):
    return manifest["metadata"]["name"]


def pod_labels():
    return [workload["spec"]["template"]["metadata"]["labels"] for workload in WORKLOADS]


def matches(selector, labels):
    wanted = selector.get("matchLabels", {})
    in_lists = all(
        labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", ())
    )
    return in_lists and wanted.items() <= labels.items()


def test_every_file_is_listed():
    assert {file.name for file in BASE.iterdir()} == {*KUSTOMIZATION["resources"], "kustomization.yml"}


@pytest.mark.parametrize("manifest", OBJECTS, ids=lambda m: f"{m['kind']} {m['metadata']['name']}")
def test_manifests_are_valid(manifest):
    kubernetes_validate.validate(manifest, "1.30", strict=True)


def test_selectors_find_pods():
    for manifest in OBJECTS:
        spec, kind = manifest.get("spec", {}), manifest["kind"]
        selectors = []
        if kind in ("Deployment", "StatefulSet"):
            selectors = [spec["selector"]]
            assert matches(spec["selector"], spec["template"]["metadata"]["labels"])
        elif kind == "Service":
            selectors = [{"matchLabels": spec["selector"]}]
        elif kind == "PodDisruptionBudget":
            selectors = [spec["selector"]]
        elif kind == "NetworkPolicy":
            peers = [
                peer["podSelector"]
                for rule in (*spec.get("ingress", ()), *spec.get("egress", ()))
                for peer in (*rule.get("from", ()), *rule.get("to", ()))
                if "podSelector" in peer
            ]
            selectors = [spec["podSelector"], *peers]
        for selector in selectors:
            assert any(matches(selector, labels) for labels in pod_labels()), f"{kind} {name_of(manifest)}"


def test_the_window_is_bounded_well_below_redis():
    """Else Redis is full first, and a full one refuses everything."""
    (redis,) = (workload for workload in WORKLOADS if name_of(workload) == "redis")
    arguments = redis["spec"]["template"]["spec"]["containers"][0]["args"]
    memory = int(arguments[arguments.index("--maxmemory") + 1].removesuffix("gb")) * 1024**3
    assert int(LITERALS["storage"]["VDFD_REPLAY__WINDOW_BYTES"]) <= memory / 2


def test_services_name_ports_that_containers_have():
    ports = {
        port["containerPort"]: port["name"]
        for workload in WORKLOADS
        for port in workload["spec"]["template"]["spec"]["containers"][0].get("ports", ())
    }
    for manifest in OBJECTS:
        if manifest["kind"] == "Service":
            assert all(ports[port["port"]] == port["name"] for port in manifest["spec"]["ports"])


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_pods_are_restricted_limited_and_watched(workload):
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]
    assert {"startupProbe", "livenessProbe"} <= container.keys()
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    declared = {volume["name"] for volume in pod["volumes"]}
    claimed = {name_of(claim) for claim in workload["spec"].get("volumeClaimTemplates", ())}
    assert mounted == declared | claimed


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_the_configuration_of_every_pod_is_understood(workload):
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    environment = {}
    for source in container.get("envFrom", ()):
        environment |= LITERALS[source["configMapRef"]["name"]]
    for variable in re.findall(r"\$\((\w+)\)", " ".join(container["args"])):
        assert variable in environment
    if environment:
        config = load_config(Sources(environment=environment))
        assert config.rpc.encrypted and config.rpc.address == "replay:50051"


def test_overlays_name_every_image():
    images = {workload["spec"]["template"]["spec"]["containers"][0]["image"] for workload in WORKLOADS}
    for overlay in (K8S / "overlays").iterdir():
        kustomization = yaml.safe_load((overlay / "kustomization.yml").read_text())
        assert {image["name"] for image in kustomization["images"]} == images, overlay.name
        for patch in kustomization.get("patches", ()):
            target = (patch["target"]["kind"], patch["target"]["name"])
            assert target in {(workload["kind"], name_of(workload)) for workload in WORKLOADS}
