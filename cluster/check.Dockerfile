# The image of the pods of cluster/check.
FROM scratch
COPY busybox /bin/busybox
COPY version /version
ENTRYPOINT ["/bin/busybox"]
