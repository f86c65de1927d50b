# One image for every process: web, workers, beat, inference server. The command in docker-compose.yml says which.
FROM python:3.12-slim-bookworm AS base

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN useradd --create-home --uid 10001 heed && mkdir -p /var/lib/heed && chown heed /var/lib/heed
WORKDIR /srv/heed

# The dependencies first: a change of the code does not install them again.
COPY pyproject.toml constraints.txt README.md ./
# TORCH_INDEX: the wheel index of torch for your accelerator; empty takes the default index.
ARG TORCH_INDEX=""
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c constraints.txt .

COPY . .
ENV VAR_DIR=/var/lib/heed DJANGO_SETTINGS_MODULE=config.settings PYTHONPATH=/srv/heed \
    HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1
USER heed
VOLUME /var/lib/heed
EXPOSE 8000
CMD ["gunicorn", "config.wsgi", "--bind", "0.0.0.0:8000", "--workers", "2", "--threads", "4"]
