# Redis as an ordinary user, with the settings that a run needs. Users and certificates come from /secrets.
ARG REDIS_IMAGE=redis:7
FROM ${REDIS_IMAGE}
COPY deploy/docker/redis.conf /etc/vdfd/redis.conf
RUN install -d -o redis -g redis /var/lib/vdfd-redis
USER redis
WORKDIR /var/lib/vdfd-redis
ENTRYPOINT ["redis-server", "/etc/vdfd/redis.conf"]
