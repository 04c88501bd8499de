# An image to train, sample and evaluate in. On a CPU:
#   docker build -t hamgan .
#   docker run --rm -it -v "$PWD/runs:/work/runs" hamgan train --config fashion
# On NVIDIA GPUs (the container toolkit of NVIDIA has to be installed), with the CUDA libraries that torch brings:
#   docker build -t hamgan:cuda --build-arg TORCH=cuda .
#   docker run --rm -it --gpus all --ipc=host -v "$PWD/runs:/work/runs" hamgan:cuda train --config photos128
FROM python:3.12-slim

# cpu: torch without CUDA's libraries, which are more than 3 GB; cuda: torch as PyPI has it.
ARG TORCH=cpu
# all: also films, the hub, ONNX and the page; none leaves them out.
ARG EXTRAS=all

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

# torch.compile calls a C++ compiler.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/hamgan
# The packages first: they change more seldom than the code, and Docker keeps their layer.
COPY requirements.txt requirements-sharing.txt ./
RUN case "$TORCH" in \
      cpu) grep -E '^torch(vision)?[>=<]' requirements.txt > torch.txt \
           && pip install --index-url https://download.pytorch.org/whl/cpu -r torch.txt ;; \
      cuda) ;; \
      *) echo "TORCH is $TORCH; allowed: cpu, cuda" >&2; exit 1 ;; \
    esac \
    && pip install -r requirements.txt \
    && if [ "$EXTRAS" = all ]; then pip install -r requirements-sharing.txt; fi

COPY pyproject.toml setup.py README.md LICENSE ./
COPY requirements-dev.txt requirements-formats.txt requirements-segmentation.txt ./
COPY configs configs
COPY hamgan hamgan
RUN pip install --no-deps .

# Files that the container writes belong to this user; give --user "$(id -u):$(id -g)" for your own. Whoever that is
# keeps downloads and features of references in the home folder.
RUN useradd --create-home --uid 1000 hamgan && mkdir /work && chown hamgan /work && chmod 1777 /work /home/hamgan
USER hamgan
ENV HOME=/home/hamgan
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["hamgan"]
CMD ["--help"]
