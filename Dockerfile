# The service of one run folder: docker build -t attfm-serve . && docker run -p 127.0.0.1:8000:8000 -v "$PWD/runs/adult:/model:ro" attfm-serve
FROM python:3.12-slim AS build
# The kernels are compiled here; the compiler does not come along.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml constraints.txt CMakeLists.txt README.md LICENSE ./
COPY native ./native
COPY src ./src
# Where pip finds torch's CPU builds too (--build-arg PIP_EXTRA_INDEX_URL=...); without it the image holds CUDA as well.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_CONSTRAINT=/source/constraints.txt
RUN python -m venv /opt/attfm && /opt/attfm/bin/pip install --no-cache-dir ".[serve]"

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin attfm
COPY --from=build /opt/attfm /opt/attfm
ENV PATH=/opt/attfm/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
# Within the container every address is listened on; who may reach it is said where the container is started.
ENTRYPOINT ["attfm", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8000"]
