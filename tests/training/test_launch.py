"""The recipes of a 7B model and what starts them: they load, and they fit together."""

import copy
import itertools
from importlib import resources

import kubernetes_validate
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from data.errors import SettingsError
from training import language_job
from training.language_recipe import language_recipe_text, parse_language_recipe

LAUNCH = resources.files("training") / "launch"
NAMES = ("language-tiny", "qwen-7b-qlora", "qwen-7b-multi-gpu")
PET = {
    "PET_NNODES": "1",
    "PET_NODE_RANK": "0",
    "PET_MASTER_ADDR": "matjip-qwen-7b-node-0-0.matjip-qwen-7b",
    "PET_MASTER_PORT": "29400",
}


def recipe(name):
    return parse_language_recipe(language_recipe_text(name))


def fsdp():
    return load_config_from_file(str(LAUNCH / "fsdp.yaml"))


def documents():
    return list(yaml.safe_load_all((LAUNCH / "train_job.yaml").read_text(encoding="utf-8")))


def job():
    return documents()[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_language_recipe_loads_under_its_own_name(name):
    assert recipe(name).name == name


def test_language_recipes_differ():
    assert all(a.digest() != b.digest() for a, b in itertools.combinations(map(recipe, NAMES), 2))


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_7b_recipe_is_for_a_gpu(name):
    big = recipe(name)
    assert big.base.pretrained == "Qwen/Qwen2.5-7B-Instruct"
    assert big.precision == "bfloat16"
    assert big.tuning.packing
    # The gold targets' longest example has 787 of Qwen's tokens.
    assert big.tuning.max_tokens >= 1024


def test_one_gpu_trains_over_nf4_and_many_shard_bfloat16():
    assert recipe("qwen-7b-qlora").tuning.quantized_base == "nf4"
    assert recipe("qwen-7b-multi-gpu").tuning.quantized_base == "none"


def test_both_ways_learn_from_as_many_sequences_a_step():
    one, many = recipe("qwen-7b-qlora").tuning, recipe("qwen-7b-multi-gpu").tuning
    assert one.batch_examples * one.accumulation == 16
    assert many.batch_examples * many.accumulation * fsdp().num_processes == 16


def test_activations_are_recomputed_by_the_trainer_alone():
    # With neither 7B does not fit, both at once is an error, and FSDP's way leaves PEFT 0.21 with
    # an empty adapter.
    assert not fsdp().fsdp_config["fsdp_activation_checkpointing"]
    assert all(recipe(name).tuning.gradient_checkpointing for name in NAMES[1:])


def test_accelerate_takes_the_sharding_as_fsdp2():
    settings = fsdp()
    assert settings.distributed_type.value == "FSDP"
    assert settings.mixed_precision == "bf16"
    known = vars(launch_command_parser().parse_args(["script"]))
    assert set(settings.fsdp_config) <= set(known)
    assert settings.fsdp_config["fsdp_version"] == 2
    assert settings.fsdp_config["fsdp_transformer_layer_cls_to_wrap"] == "Qwen2DecoderLayer"


def test_kubernetes_knows_the_claim_and_the_pod_that_the_job_makes():
    claim = documents()[1]
    kubernetes_validate.validate(claim, kubernetes_validate.latest_version(), strict=True)
    pod = pod_of(job())
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    broken = copy.deepcopy(pod)
    broken["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def patch_of(manifest):
    """The one pod that the job's patches change."""
    [patch] = manifest["spec"]["runtimePatches"]
    [replicated] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    return replicated["template"]["spec"]["template"]["spec"]


def pod_of(manifest):
    """A pod with what the TrainJob says of it: a kind that kubernetes-validate knows."""
    trainer, patch = manifest["spec"]["trainer"], copy.deepcopy(patch_of(manifest))
    [container] = patch["containers"]
    container |= {key: trainer[key] for key in ("image", "command", "args", "env")}
    container["resources"] = trainer["resourcesPerNode"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": manifest["metadata"],
        "spec": {**patch, "containers": [container]},
    }


def test_the_job_is_what_kubeflow_trainer_2_reads():
    # kubernetes-validate has no schema of it; these are its fields in Trainer 2.3.
    manifest = job()
    assert manifest["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    assert manifest["kind"] == "TrainJob"
    spec = manifest["spec"]
    assert set(spec) == {"runtimeRef", "activeDeadlineSeconds", "trainer", "runtimePatches"}
    assert spec["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "ClusterTrainingRuntime",
        "name": "torch-distributed",
    }
    known = {"image", "command", "args", "env", "numNodes", "numProcPerNode", "resourcesPerNode"}
    assert set(spec["trainer"]) <= known
    assert set(patch_of(manifest)) <= {"securityContext", "tolerations", "volumes", "containers"}
    [container] = patch_of(manifest)["containers"]
    assert set(container) <= {"name", "env", "securityContext", "volumeMounts"}
    assert not {each["name"] for each in spec["trainer"]["env"]} & set(PET)


def test_what_the_job_mounts_is_there():
    patch = patch_of(job())
    [container] = patch["containers"]
    volumes = {volume["name"]: volume for volume in patch["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    claim = documents()[1]["metadata"]
    assert volumes["matjip"]["persistentVolumeClaim"]["claimName"] == claim["name"]
    assert claim["namespace"] == job()["metadata"]["namespace"]
    paths = [value for arg in job()["spec"]["trainer"]["args"] if (value := arg.partition("=")[2])]
    data = [path for path in paths if path.startswith("/mnt/")]
    assert len(data) == 4
    assert all(path.startswith("/mnt/matjip/") for path in data)


def test_the_jobs_command_is_one_that_accelerate_and_our_program_take():
    trainer = job()["spec"]["trainer"]
    assert trainer["command"] == ["accelerate", "launch"]
    args = trainer["args"]
    for name, value in PET.items():
        args = [each.replace(f"$({name})", value) for each in args]
    assert not any("$" in each for each in args)
    launched = launch_command_parser().parse_args(args)
    assert launched.module
    assert launched.training_script == language_job.__name__
    assert launched.config_file.endswith("/training/launch/fsdp.yaml")
    assert (launched.num_machines, launched.machine_rank) == (1, 0)
    assert launched.main_process_port == 29400
    gpus = int(trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"])
    assert launched.num_processes == gpus * trainer["numNodes"] == fsdp().num_processes
    ours = language_job.parse_arguments(launched.training_script_args)
    assert recipe(ours.recipe).name == "qwen-7b-multi-gpu"


def test_an_unknown_recipe_is_refused_with_its_name():
    with pytest.raises(SettingsError, match="qwen-70b"):
        language_recipe_text("qwen-70b")
