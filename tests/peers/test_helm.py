"""The Helm chart: helm renders it, and what it renders is what Kubernetes' schemas allow, strictly, and a pod without privileges."""

import json
import subprocess

import kubernetes_validate
import pytest
import yaml

from conftest import BIN, ROOT, USER_CACHE

HELM = USER_CACHE / "peers/bin/helm"
CHART = ROOT / "deploy/helm/capsule"
DIGEST = "sha256:" + "ab" * 32
IMAGE = {"repository": "registry.example/hello", "digest": DIGEST}
PORTS = [{"name": "http", "port": 8080, "servicePort": 80}, {"name": "aux", "port": 9001}]
EVERYTHING = {
    "image": {"repository": "registry.example/hello", "tag": "1.0", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "login"}],
    "replicas": 2,
    "enclave": {"cpuCount": 4, "memoryMiB": 2048, "hugepages": "1Gi", "debug": True},
    "ports": [{"name": "https", "port": 443}],
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "startupProbe": {"httpGet": {"path": "/up", "port": "https", "scheme": "HTTPS"}},
    "readinessProbe": {"httpGet": {"path": "/ready", "port": "https", "scheme": "HTTPS"}},
    "livenessProbe": {"tcpSocket": {"port": "https"}},
    "tolerations": [{"key": "enclaves", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "capsule"}}}]}},
    "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/capsule.json"},
    "podAnnotations": {"x": "1"},
    "extraArgs": ["--log-format", "json"],
}


def helm(command, values, tmp_path):
    path = tmp_path / "values.json"
    path.write_text(json.dumps(values))
    home = {name: str(tmp_path / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    return subprocess.run([HELM, *command, CHART, "--values", path], capture_output=True, text=True, timeout=60, env=home)


def render(values, tmp_path):
    r = helm(["template", "hello"], values, tmp_path)
    assert r.returncode == 0, r.stderr
    return {doc["kind"]: doc for doc in yaml.safe_load_all(r.stdout) if doc}


def container_of(rendered):
    (container,) = rendered["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container


VALUES = pytest.mark.parametrize("values", [{"image": IMAGE}, {"image": IMAGE, "ports": PORTS}, EVERYTHING],
                                 ids=["least", "ports", "everything"])


@VALUES
def test_lint(values, tmp_path):
    r = helm(["lint", "--strict"], values, tmp_path)
    assert r.returncode == 0, r.stdout + r.stderr


@VALUES
@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_schemas_of_kubernetes(values, version, tmp_path):
    rendered = render(values, tmp_path)
    assert set(rendered) == ({"Deployment", "Service"} if values.get("ports") else {"Deployment"})
    for doc in rendered.values():
        kubernetes_validate.validate(doc, version, strict=True)


def test_the_schemas_catch_a_mistake(tmp_path):
    doc = render({"image": IMAGE}, tmp_path)["Deployment"]
    doc["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privilege"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(doc, "1.37", strict=True)


def test_the_pod_has_its_enclave_and_no_privilege(tmp_path):
    rendered = render({"image": IMAGE, "ports": PORTS}, tmp_path)
    c, pod = container_of(rendered), rendered["Deployment"]["spec"]["template"]["spec"]
    assert c["image"] == f"registry.example/hello@{DIGEST}"
    for kind in ("requests", "limits"):
        assert c["resources"][kind]["aws.ec2.nitro/nitro_enclaves"] == "1"
        assert c["resources"][kind]["hugepages-2Mi"] == "1024Mi"
    context = c["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert (context["privileged"], context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, False, True)
    assert pod["automountServiceAccountToken"] is False and not pod.get("hostNetwork")
    assert all("hostPath" not in v for v in pod["volumes"])
    assert [(p["port"], p["targetPort"]) for p in rendered["Service"]["spec"]["ports"]] == [(80, "http"), (9001, "aux")]
    assert c["startupProbe"]["tcpSocket"] == c["readinessProbe"]["tcpSocket"] == {"port": "http"}
    assert pod["nodeSelector"] == {"aws-nitro-enclaves-k8s-dp": "enabled"}


def test_low_ports_need_their_one_capability(tmp_path):
    assert container_of(render(EVERYTHING, tmp_path))["securityContext"]["capabilities"] == {
        "drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}


@VALUES
def test_capsule_shell_takes_the_arguments(values, tmp_path):
    """All options are read before anything is looked for: the image that is not there is the only complaint."""
    args = container_of(render(values, tmp_path))["args"]
    r = subprocess.run([BIN / "capsule-shell", *args, "--eif-file", tmp_path / "none", "--manifest-file", tmp_path / "none"],
                       capture_output=True, text=True, timeout=20)
    assert r.returncode == 1 and f"{tmp_path}/none" in r.stderr, r.stderr


@pytest.mark.parametrize("values,says", [
    ({}, "repository"),
    ({"image": {**IMAGE, "digest": "sha256:short"}}, "digest"),
    ({"image": IMAGE, "enclave": {"memoryMiB": 63}}, "memoryMiB"),
    ({"image": IMAGE, "enclave": {"memoryMiB": 129}}, "not a multiple"),
    ({"image": IMAGE, "enclave": {"memoryMiB": 1536, "hugepages": "1Gi"}}, "not a multiple"),
    ({"image": IMAGE, "enclave": {"hugepages": "4Ki"}}, "hugepages"),
    ({"image": IMAGE, "ports": [{"name": "UPPER", "port": 1}]}, "name"),
    ({"image": IMAGE, "ports": [{"name": "a", "port": 65536}]}, "port"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_values_that_cannot_work_are_refused(values, says, tmp_path):
    r = helm(["template", "hello"], values, tmp_path)
    assert r.returncode == 1 and r.stdout == "" and says in r.stderr
