"""What scrapers make of /metrics: Prometheus' own parser, and Go's, which the endpoint pickers of gateways use."""

import json
import re
import time
import urllib.request

from checks import ADAPTER, BASE, URL, eventually, run
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

# expfmt's text parser fails the whole scrape on a TYPE that is none of these.
GO_KNOWS = {"counter", "gauge", "histogram", "summary", "untyped"}


def scrape(**headers):
    with urllib.request.urlopen(urllib.request.Request(f"{URL}/metrics", headers=headers)) as answer:
        return answer.headers["content-type"], answer.read().decode()


def every_parser_reads_it():
    kind, text = scrape()
    assert kind.startswith("text/plain; version=0.0.4")
    types = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(types) > 30 and {kind for _, kind in types} <= GO_KNOWS
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert len(families) == len(types)
    kind, text = scrape(accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text") and text.endswith("# EOF\n")
    assert {family.name for family in openmetrics_families(text)}


def the_adapter_is_resident():
    families = {family.name: family for family in text_string_to_metric_families(scrape()[1])}
    [lora] = families["vllm:lora_requests_info"].samples
    return ADAPTER in lora.labels["running_lora_adapters"].split(",")


def the_endpoint_picker_finds_its_metrics():
    body = json.dumps({"model": ADAPTER, "prompt": "one", "max_tokens": 1}).encode()
    head = {"content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{URL}/v1/completions", body, head)).close()
    eventually(the_adapter_is_resident)
    families = {family.name: family for family in text_string_to_metric_families(scrape()[1])}
    for name in ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"):
        [sample] = families[f"vllm:{name}"].samples
        assert sample.labels["model_name"] == BASE
    [lora] = families["vllm:lora_requests_info"].samples
    assert int(lora.labels["max_lora"]) >= 1 and "waiting_lora_adapters" in lora.labels
    assert abs(lora.value - time.time()) < 60
    [cache] = families["vllm:cache_config_info"].samples
    assert int(cache.labels["block_size"]) >= 1 and int(cache.labels["num_gpu_blocks"]) >= 1


run(every_parser_reads_it, the_endpoint_picker_finds_its_metrics)
