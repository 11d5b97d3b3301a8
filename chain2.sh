while pgrep -f w2.sh >/dev/null; do sleep 1; done
bash w3.sh
