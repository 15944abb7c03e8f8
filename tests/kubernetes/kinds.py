"""The custom kinds that docker/k8s uses, as JSON schemas: the fields that are used, and no others.

Written after the projects' definitions, with their bounds:
InferencePool        kubernetes-sigs/gateway-api-inference-extension, config/crd/bases
InferenceObjective   llm-d/llm-d-router v0.10.0, config/crd/bases
EndpointPickerConfig llm-d/llm-d-router v0.10.0, apix/config
HTTPRoute            kubernetes-sigs/gateway-api v1, config/crd/standard
PodMonitor           prometheus-operator/prometheus-operator, example/prometheus-operator-crd
"""

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"}
GROUP = {"type": "string", "maxLength": 253, "pattern": r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
DURATION = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
LABELS = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": 64,
    "additionalProperties": {"type": "string", "maxLength": 63, "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"},
}


def fields(required, optional=None):
    """An object with these fields and no others."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


def items(item, least=1, most=16):
    return {"type": "array", "items": item, "minItems": least, "maxItems": most}


def kind(spec):
    metadata = fields({"name": NAME}, {"labels": LABELS, "annotations": {"type": "object"}, "namespace": NAME})
    return fields({"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": metadata, "spec": spec})


INFERENCE_POOL = kind(
    fields(
        {"selector": fields({"matchLabels": LABELS}), "targetPorts": items(fields({"number": PORT}), most=8)},
        {
            "appProtocol": {"enum": ["http", "kubernetes.io/h2c"]},
            "endpointPickerRef": fields(
                {"kind": {"const": "Service"}, "name": NAME, "port": fields({"number": PORT})},
                {"group": GROUP, "failureMode": {"enum": ["FailOpen", "FailClose"]}},
            ),
        },
    )
)

INFERENCE_OBJECTIVE = kind(
    fields(
        {"poolRef": fields({"name": NAME}, {"group": GROUP, "kind": {"type": "string"}})},
        {"priority": {"type": "integer"}},
    )
)

PATH_MATCH = fields({"type": {"enum": ["Exact", "PathPrefix", "RegularExpression"]}, "value": {"type": "string", "pattern": "^/"}})
HTTP_ROUTE = kind(
    fields(
        {
            "parentRefs": items(fields({"name": NAME}, {"namespace": NAME, "sectionName": NAME})),
            "rules": items(
                fields(
                    {"backendRefs": items(fields({"group": GROUP, "kind": {"type": "string"}, "name": NAME}, {"port": PORT}))},
                    {
                        "matches": items(fields({"path": PATH_MATCH}), most=64),
                        "timeouts": fields({}, {"request": DURATION, "backendRequest": DURATION}),
                    },
                )
            ),
        }
    )
)

POD_MONITOR = kind(
    fields(
        {
            "selector": fields({"matchLabels": LABELS}),
            "podMetricsEndpoints": items(
                fields({"port": {"type": "string"}}, {"path": {"type": "string"}, "interval": DURATION})
            ),
        }
    )
)

ENDPOINT_PICKER_CONFIG = fields(
    {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "plugins": items(
            fields(
                {
                    "type": {
                        "enum": [
                            "lora-affinity-scorer",
                            "queue-scorer",
                            "kv-cache-utilization-scorer",
                            "prefix-cache-scorer",
                            "max-score-picker",
                            "single-profile-handler",
                        ]
                    }
                },
                {"name": {"type": "string"}, "parameters": {"type": "object"}},
            )
        ),
        "schedulingProfiles": items(
            fields(
                {
                    "name": {"type": "string"},
                    "plugins": items(fields({"pluginRef": {"type": "string"}}, {"weight": {"type": "number", "minimum": 0}})),
                }
            )
        ),
    }
)

SCHEMAS = {
    ("inference.networking.k8s.io/v1", "InferencePool"): INFERENCE_POOL,
    ("llm-d.ai/v1alpha2", "InferenceObjective"): INFERENCE_OBJECTIVE,
    ("llm-d.ai/v1alpha1", "EndpointPickerConfig"): ENDPOINT_PICKER_CONFIG,
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): HTTP_ROUTE,
    ("monitoring.coreos.com/v1", "PodMonitor"): POD_MONITOR,
}
