# One image for the dashboard and the workers; on a host with the NVIDIA container toolkit torch's own CUDA libraries
# in it find the GPU.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 hpo \
    && mkdir -p /data /home/hpo/state && chown hpo:hpo /data /home/hpo/state
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY hpo ./hpo
COPY trainers ./trainers
COPY studies ./studies
RUN pip install --no-cache-dir ".[classifier]"
USER hpo
ENV HPO_HOME=/home/hpo/state HPO_DATA=/data PYTHONUNBUFFERED=1
VOLUME ["/data", "/home/hpo/state"]
ENTRYPOINT ["hpo"]
CMD ["--help"]
