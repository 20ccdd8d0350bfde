"""Kinds of objects that the server keeps, and where they are found in its URLs."""

from __future__ import annotations

from typing import NamedTuple


class Resource(NamedTuple):
    """A kind of objects. `plural`: its name in URLs."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """What an object of it says in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name among those of all groups: `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


RBAC = "rbac.authorization.k8s.io"
PODS = Resource("", "v1", "pods", "Pod", short=("po",))
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",))
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", short=("cm",))
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", short=("quota",))
RESOURCES = (
    PODS,
    NAMESPACES,
    SECRETS,
    CONFIG_MAPS,
    QUOTAS,
    Resource("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Resource("", "v1", "services", "Service", short=("svc",)),
    Resource("", "v1", "events", "Event", short=("ev",)),
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",)),
    Resource("apps", "v1", "deployments", "Deployment", short=("deploy",)),
    Resource("batch", "v1", "jobs", "Job"),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",)),
    Resource(RBAC, "v1", "roles", "Role"),
    Resource(RBAC, "v1", "rolebindings", "RoleBinding"),
)


class RequestTarget(NamedTuple):
    """What the path of a URL names. `namespace` None: all of them; `name` None: the list."""

    resource: Resource
    namespace: str | None
    name: str | None = None
    subresource: str | None = None


def target_of(path: str) -> RequestTarget | None:
    """What a path such as `/api/v1/namespaces/a/pods/b/log` names; None: nothing."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        group, version, rest = "", parts[1] if len(parts) > 1 else "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = None
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3:
        return None
    for resource in RESOURCES:
        if (resource.group, resource.version, resource.plural) == (group, version, rest[0]):
            return RequestTarget(resource, namespace, *rest[1:])
    return None
