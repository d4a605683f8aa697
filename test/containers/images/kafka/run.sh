#!/bin/bash
# KAFKA_LOG_DIRS is log.dirs of the broker's settings, and so on.
set -euo pipefail
properties=/tmp/server.properties
env | while IFS='=' read -r name value; do
  case $name in
    KAFKA_HEAP_OPTS) ;;
    KAFKA_*)
      name=${name#KAFKA_}
      name=${name,,}
      echo "${name//_/.}=$value"
      ;;
  esac
done > "$properties"
cat > /tmp/log4j2.properties <<'END'
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %m (%c)%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=INFO
END
read -ra heap <<< "${KAFKA_HEAP_OPTS:-}"
java=(java "${heap[@]}" -XX:+UseSerialGC -Dlog4j2.configurationFile=/tmp/log4j2.properties -cp '/opt/kafka/libs/*')
"${java[@]}" kafka.tools.StorageTool format --ignore-formatted -t "${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" -c "$properties"
exec "${java[@]}" kafka.Kafka "$properties"
