# relisten serve on the CPU; see docs/serving.md.
#
#   docker build -t relisten .
#   docker run -p 127.0.0.1:8000:8000 -e RELISTEN_TOKEN=... -v relisten:/var/cache/relisten relisten
FROM python:3.12-slim
COPY . /src
RUN useradd --create-home relisten && \
    mkdir -p /var/cache/relisten && chown relisten /var/cache/relisten && \
    pip install --no-cache-dir '/src[serve]' && rm -r /src
USER relisten
ENV RELISTEN_CACHE=/var/cache/relisten
VOLUME /var/cache/relisten
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["relisten", "serve", "--host", "0.0.0.0", "--quiet"]
