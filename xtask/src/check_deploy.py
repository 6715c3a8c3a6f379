"""Checks deploy/: manifests against Kubernetes' schemas and against each other, the Containerfile by hadolint.

Usage: check_deploy.py ROOT TOOLS. kustomize is the one in TOOLS/bin/kubectl. Every rule is tried on manifests that break it
before the real ones are believed: a check that cannot fail is none.
"""

import copy
import functools
import glob
import os
import re
import subprocess
import sys

import kubernetes_validate
import kubernetes_validate.utils
import yaml

# It reads its definitions, megabytes of JSON, anew for each document.
kubernetes_validate.utils.schema_contents = functools.lru_cache(None)(kubernetes_validate.utils.schema_contents)

# Oldest and newest supported; what only one of them knows is an error.
KUBERNETES = ["1.31", "1.37"]
# Secrets that are made by hand, and where.
BY_HAND = {"base": {"exprsn-backends", "exprsn-join"}, "overlay": {"exprsn-join"}}
MESH_PORT = 3100

ROOT, TOOLS = sys.argv[1:3]


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def rendered(folder):
    """What `kubectl apply -k` would send."""
    kubectl = os.path.join(TOOLS, "bin", "kubectl")
    done = subprocess.run([kubectl, "kustomize", os.path.join(ROOT, folder)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{folder}: {done.stderr.strip()}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def expected():
    """Ports of services by name, how long a drain may take, and the sections of services, from where each is decided."""
    ports = {}
    for path in glob.glob(os.path.join(ROOT, "components", "*", "component.toml")):
        text = read(os.path.relpath(path, ROOT))
        name = re.search(r'^name = "(.+)"', text, re.M).group(1)
        ports[name] = int(re.search(r"^port = (\d+)", text, re.M).group(1))
    reference = read("platform.toml")
    drain = int(re.search(r"^# drain_ms_max = (\d+)", reference, re.M).group(1))
    return ports, drain, sections(reference)


def sections(toml):
    """`[service.…]` and what stands in each, without comments."""
    parts = re.split(r"^\[(.+)\]$", re.sub(r"^#.*\n", "", toml, flags=re.M), flags=re.M)
    named = zip(parts[1::2], parts[2::2])
    return {name.removeprefix("service."): body.strip() for name, body in named if name.startswith("service.")}


def schema_errors(documents):
    for document in documents:
        name = f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                yield f"{name}, Kubernetes {version}: {error.message}"


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def names(documents, kind):
    return {document["metadata"]["name"] for document in of_kind(documents, kind)}


def pods(documents):
    """Deployments with their pods' labels, the pods' specification and the one container."""
    for deployment in of_kind(documents, "Deployment"):
        template = deployment["spec"]["template"]
        spec = template["spec"]
        yield deployment, template["metadata"]["labels"], spec, spec["containers"][0]


def chosen(documents, selector):
    return [d["metadata"]["name"] for d, labels, _, _ in pods(documents) if selector.items() <= labels.items()]


def selector_errors(documents):
    """Everything that selects pods selects some; every group has its budget."""
    budgets = []
    for document in documents:
        kind, name, spec = document["kind"], document["metadata"]["name"], document.get("spec", {})
        selector = {
            "Deployment": lambda: spec["selector"]["matchLabels"],
            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
            "Service": lambda: spec["selector"],
            "NetworkPolicy": lambda: spec["podSelector"].get("matchLabels", {}),
        }.get(kind)
        if selector is None:
            continue
        found = chosen(documents, selector())
        if not found:
            yield f"{kind}/{name} selects no pods"
        if kind == "Deployment" and found != [name]:
            yield f"{kind}/{name} selects pods of {found}"
        if kind == "PodDisruptionBudget":
            budgets += found
    for deployment in of_kind(documents, "Deployment"):
        if budgets.count(deployment["metadata"]["name"]) != 1:
            yield f"{deployment['metadata']['name']} has not one PodDisruptionBudget"
    for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]["name"]
        found = [d for d in of_kind(documents, "Deployment") if d["metadata"]["name"] == target]
        if not found or "replicas" in found[0]["spec"]:
            yield f"{target} is to be scaled, and is not there or has replicas of its own"


def reference_errors(documents, by_hand):
    """Volumes, ConfigMaps, Secrets, ports and variables that are named are there."""
    secrets = {s["metadata"]["name"]: s.get("data", {}) for s in of_kind(documents, "Secret")}
    for deployment, _, spec, container in pods(documents):
        name = deployment["metadata"]["name"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            if mount["name"] not in volumes:
                yield f"{name} mounts {mount['name']}, which is no volume"
        for volume in volumes.values():
            config, claim = volume.get("configMap"), volume.get("persistentVolumeClaim")
            if config and config["name"] not in names(documents, "ConfigMap"):
                yield f"{name} wants ConfigMap {config['name']}"
            if claim and claim["claimName"] not in names(documents, "PersistentVolumeClaim"):
                yield f"{name} wants PersistentVolumeClaim {claim['claimName']}"
        known = set()
        for variable in container["env"]:
            secret = variable.get("valueFrom", {}).get("secretKeyRef")
            if secret and secret["name"] not in by_hand and secret["key"] not in secrets.get(secret["name"], {}):
                yield f"{name} wants {secret['key']} of Secret {secret['name']}"
            for used in re.findall(r"\$\((\w+)\)", variable.get("value", "")):
                if used not in known:
                    yield f"{name}: {variable['name']} uses {used}, which is not set before it"
            known.add(variable["name"])
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if container[probe]["httpGet"]["port"] not in ports:
                yield f"{name}: {probe} asks a port that is not there"
    for service in of_kind(documents, "Service"):
        for port in service["spec"]["ports"]:
            for _, labels, _, container in pods(documents):
                if service["spec"]["selector"].items() <= labels.items():
                    by_name = {p["name"]: p["containerPort"] for p in container["ports"]}
                    if by_name.get(port["targetPort"]) != port["port"]:
                        yield f"Service/{service['metadata']['name']} leads to port {port['targetPort']}"


def host_errors(documents, ports, drain_ms, reference):
    """What the hosts need: each service in one group, with its port; time to drain; what the configuration names."""
    config = of_kind(documents, "ConfigMap")[0]["data"]["platform.toml"]
    if sections(config) != reference:
        yield "the services of platform.toml differ from those of the reference"
    own = re.search(r"^drain_ms_max = (\d+)", config, re.M)
    drain_ms = int(own.group(1)) if own else drain_ms
    placed = []
    for deployment, _, spec, container in pods(documents):
        name = deployment["metadata"]["name"]
        services = ["exprsn-" + short for short in container["args"][-1].split(",")]
        placed += services
        opened = {port["containerPort"] for port in container["ports"]}
        if opened != {ports.get(service) for service in services} | {MESH_PORT}:
            yield f"{name} opens {sorted(opened)}, not the ports of {services}"
        variables = {variable["name"] for variable in container["env"]}
        for wanted in re.findall(r'^[^#]*"\$(\w+)"', config, re.M):
            if wanted not in variables:
                yield f"{name}: platform.toml names {wanted}, which is not set"
        pause_ms = 1000 * int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
        if spec["terminationGracePeriodSeconds"] * 1000 < pause_ms + drain_ms + 10_000:
            yield f"{name} is killed before it has drained"
        probes = [container[p]["httpGet"]["path"] for p in ("startupProbe", "livenessProbe", "readinessProbe")]
        if probes != ["/livez", "/livez", "/readyz"]:
            yield f"{name} is asked at {probes}"
    if sorted(placed) != sorted(reference):
        yield f"{sorted(placed)} run, not {sorted(reference)}"


def hardening_errors(documents):
    for deployment, _, spec, container in pods(documents):
        name, pod, own = deployment["metadata"]["name"], spec.get("securityContext", {}), container["securityContext"]
        rules = {
            "runAsNonRoot": pod.get("runAsNonRoot"),
            "seccompProfile": pod.get("seccompProfile") == {"type": "RuntimeDefault"},
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem"),
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "automountServiceAccountToken": spec.get("automountServiceAccountToken") is False,
            "enableServiceLinks": spec.get("enableServiceLinks") is False,
            "memory limit": container["resources"].get("limits", {}).get("memory"),
            # The kubelet must not open the keys to the group each time that a pod starts.
            "fsGroupChangePolicy": "fsGroup" not in pod or pod.get("fsGroupChangePolicy") == "OnRootMismatch",
        }
        for rule, kept in rules.items():
            if not kept:
                yield f"{name}: {rule}"
    denied = [p for p in of_kind(documents, "NetworkPolicy") if not {"ingress", "egress"} & p["spec"].keys()]
    if not denied or set(denied[0]["spec"]["policyTypes"]) != {"Ingress", "Egress"}:
        yield "no NetworkPolicy denies what the others do not allow"


def errors(documents, by_hand, known):
    found = list(schema_errors(documents))
    # Where the shape is wrong, nothing more can be said.
    return found or [
        *selector_errors(documents),
        *reference_errors(documents, by_hand),
        *host_errors(documents, *known),
        *hardening_errors(documents),
    ]


def deployment(documents, group):
    return next(d for d in of_kind(documents, "Deployment") if d["metadata"]["name"] == f"exprsn-{group}")


def container(documents, group):
    return deployment(documents, group)["spec"]["template"]["spec"]["containers"][0]


def pod(documents, group):
    return deployment(documents, group)["spec"]["template"]["spec"]


def first(documents, kind):
    return of_kind(documents, kind)[0]


# What breaks each rule, and a word of what must be said of it.
WRONG = [
    ("is not of type 'integer'", lambda d: deployment(d, "core")["spec"].update(replicas="one")),
    ("Additional properties", lambda d: container(d, "edge").update(readynessProbe={})),
    ("Couldn't find schema", lambda d: first(d, "Service").update(kind="Sevrice")),
    ("selects no pods", lambda d: first(d, "Service")["spec"]["selector"].update(x="y")),
    ("selects no pods", lambda d: first(d, "NetworkPolicy")["spec"]["podSelector"].update(matchLabels={"x": "y"})),
    ("PodDisruptionBudget", lambda d: d.remove(first(d, "PodDisruptionBudget"))),
    ("to be scaled", lambda d: deployment(d, "edge")["spec"].update(replicas=2)),
    ("no volume", lambda d: pod(d, "core")["volumes"].pop()),
    ("wants ConfigMap", lambda d: first(d, "ConfigMap")["metadata"].update(name="x")),
    ("wants PersistentVolumeClaim", lambda d: d.remove(first(d, "PersistentVolumeClaim"))),
    ("of Secret", lambda d: first(d, "Secret")["data"].pop("REDIS_URL")),
    ("not set before", lambda d: container(d, "edge")["env"].reverse()),
    ("not there", lambda d: container(d, "edge")["readinessProbe"]["httpGet"].update(port="x")),
    ("leads to port", lambda d: first(d, "Service")["spec"]["ports"][0].update(port=3001, targetPort="health")),
    ("differ from those", lambda d: first(d, "ConfigMap")["data"].update({"platform.toml": "[service.x]\n"})),
    ("not the ports", lambda d: container(d, "social")["ports"].pop()),
    ("names REDIS_URL", lambda d: container(d, "core").update(env=container(d, "core")["env"][:-2])),
    ("before it has drained", lambda d: pod(d, "core").update(terminationGracePeriodSeconds=30)),
    ("is asked at", lambda d: container(d, "core")["livenessProbe"]["httpGet"].update(path="/readyz")),
    ("run, not", lambda d: d.remove(deployment(d, "social"))),
    ("readOnlyRootFilesystem", lambda d: container(d, "core")["securityContext"].pop("readOnlyRootFilesystem")),
    ("fsGroupChangePolicy", lambda d: pod(d, "core")["securityContext"].pop("fsGroupChangePolicy")),
    ("memory limit", lambda d: container(d, "core")["resources"].pop("limits")),
    ("no NetworkPolicy denies", lambda d: d.remove(first(d, "NetworkPolicy"))),
]


def wrong_ones_that_pass(right, known):
    """Each rule on manifests that break it."""
    for wanted, change in WRONG:
        wrong = copy.deepcopy(right)
        change(wrong)
        found = errors(wrong, BY_HAND["overlay"], known)
        if not any(wanted in error for error in found):
            yield f"manifests that should fail with {wanted!r} gave {found}"


def lint(text):
    hadolint = os.path.join(TOOLS, "bin", "hadolint")
    command = [hadolint, "--no-color", "--failure-threshold", "info", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


def container_errors(text, ports):
    yield from lint(text)
    said = dict(re.findall(r"^(USER|STOPSIGNAL|VOLUME|HEALTHCHECK|EXPOSE|ENTRYPOINT) (.+)$", text, re.M))
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", said.get("USER", "")):
        yield "the image runs as root"
    if said.get("STOPSIGNAL") != "SIGTERM" or said.get("VOLUME") != "/data":
        yield "STOPSIGNAL is not SIGTERM, or VOLUME not /data"
    if not {"HEALTHCHECK", "ENTRYPOINT"} <= said.keys():
        yield "HEALTHCHECK or ENTRYPOINT is missing"
    if {int(port) for port in said.get("EXPOSE", "").split()} != {*ports.values(), MESH_PORT}:
        yield "EXPOSE does not name the ports of all services and of the mesh"
    if re.search(r"(?i)(password|secret|token)\w*=", text):
        yield "something secret may be in it"


def containerfile(ports):
    text = read("deploy/Containerfile")
    yield from (f"deploy/Containerfile: {error}" for error in container_errors(text, ports))
    for wrong in [
        text.replace("--no-install-recommends ", ""),
        text.replace("USER 10001:10001", "USER root"),
        text.replace("EXPOSE 3000", "EXPOSE 80"),
        text.replace("STOPSIGNAL SIGTERM\n", ""),
        text.replace("ENV EXPRSN_CONFIG", "ENV DB_PASSWORD=x EXPRSN_CONFIG"),
        text.replace("FROM ${RUST_IMAGE}", "FRMO ${RUST_IMAGE}"),
    ]:
        if wrong == text or not list(container_errors(wrong, ports)):
            yield "a wrong Containerfile passes"


def main():
    known = expected()
    found = []
    for kind, folders in [("base", ["deploy/kubernetes/base"]), ("overlay", glob.glob(ROOT + "/deploy/kubernetes/overlays/*"))]:
        for folder in folders:
            folder = os.path.relpath(os.path.join(ROOT, folder), ROOT)
            documents = rendered(folder)
            found += [f"{folder}: {error}" for error in errors(documents, BY_HAND[kind], known)]
            print(f"{folder}: {len(documents)} manifests against Kubernetes {' and '.join(KUBERNETES)}")
    if found:
        sys.exit("\n".join(found))
    found += wrong_ones_that_pass(rendered("deploy/kubernetes/overlays/example"), known)
    found += containerfile(known[0])
    print(f"{len(WRONG)} wrong manifests")
    if found:
        sys.exit("\n".join(found))


main()
